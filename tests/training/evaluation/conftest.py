import pytest


@pytest.fixture(scope="session")
def runs(tmp_path_factory, data_dir):
    """Folders of two runs that differ in all that may differ."""
    from tests.helpers.blocks import few_blocks
    from tests.helpers.runs import save_run

    root = tmp_path_factory.mktemp("runs")
    with few_blocks():
        return [
            save_run(root / "a", data_dir, test_split="test[:50]", batch_size=16),
            save_run(root / "b", data_dir, test_split="test[:50]", image_size=40, variant="torchvision", aux=False),
        ]


@pytest.fixture(scope="session")
def predictions_of(runs):
    """{(number of the run, crops): predictions of its model alone for 50 images}."""
    from tests.helpers.blocks import few_blocks
    from training.data import sources
    from training.data.pipeline import Batches
    from training.evaluation.crops import crop_batches
    from training.evaluation.predictor import predict
    from training.run_folder import RunFolder

    found = {}
    for number, folder in enumerate(runs):
        run = RunFolder(folder)
        with few_blocks():
            recipe, model = run.recipe(), run.model()
        test = sources.load(recipe).test
        found[number, 1] = predict(model, Batches(test, recipe).evaluation())
        found[number, 10] = predict(model, crop_batches(test, recipe, 10))
    return found

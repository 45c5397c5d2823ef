"""Real runs on the real digits, small enough for a test."""

import dataclasses
import importlib.util
import json
import resource
import shutil

import keras
import numpy as np
import pytest

from inception_v1.errors import MissingExtraError
from inception_v1.spec import read_spec
from tests.helpers.images import make_folder
from tests.helpers.runs import DIGITS, NAIVE, history, saved_position
from training.data import sources
from training.data.pipeline import Batches
from training.evaluation.evaluate import evaluate
from training.evaluation.metrics import score
from training.evaluation.predictor import predict
from training.presets import PRESETS
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.task import complete_recipe, recipe_spec
from training.train import train

pytestmark = pytest.mark.usefixtures("undrawn")  # but the run of `finished` draws its figures


def test_a_library_that_the_report_alone_needs_is_missed_before_training(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    with pytest.raises(MissingExtraError, match=r"the extra \[train\].* without matplotlib"):
        train(PRESETS["digits"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def recipe(data_dir):
    return dataclasses.replace(
        PRESETS["digits"],
        data_dir=data_dir,
        width_multiplier=0.1,
        epochs=3,
        warmup_epochs=1,
        train_split="train[:640]",
        test_split="test[:100]",
    )


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """The folder, metrics and recipe of a run with most of what a recipe can ask for."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    recipe = dataclasses.replace(recipe, average=0.9, aux_schedule="linear", mixup=0.1, precision="mixed_bfloat16")
    network = dataclasses.replace(read_spec(NAIVE), variant="batchnorm", aux=True)
    recipe, _ = complete_recipe(recipe, network)
    return folder, train(recipe, folder, spec=network, command="googlenet train"), recipe


def test_a_run_leaves_everything_in_its_folder(finished):
    folder, metrics, recipe = finished
    names = {path.name for path in folder.iterdir()}
    files = {"recipe.json", "spec.json", "classes.txt", "history.csv", "best.keras", "raw.keras", "metrics.json"}
    assert names == files | {"tensorboard", "report", ".lock"}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert (metrics["status"], metrics["epochs"], metrics["images"]) == ("finished", 3, 100)
    assert metrics["command"] == "googlenet train"
    assert metrics["unreadable"] == {"train": [], "validation": [], "test": []}
    assert set(metrics["heads"]) == {"main", "aux1", "aux2"}
    assert RunFolder(folder).recipe() == recipe
    assert RunFolder(folder).classes() == DIGITS
    assert list(folder.glob("tensorboard/**/events*"))
    rows = history(folder)
    assert len(rows) == 3
    assert rows[-1]["main_loss"] < rows[0]["main_loss"]


def test_the_saved_models_are_those_of_the_best_epochs(finished):
    """best.keras holds the moving average, raw.keras the weights, in float32 whatever the run computed in."""
    folder, metrics, recipe = finished
    assert keras.config.dtype_policy().name == "float32"
    rows = history(folder)
    averages = [row["val_average_main_accuracy"] for row in rows]
    assert metrics["best_epoch"] == max(range(3), key=lambda epoch: (averages[epoch], epoch)) + 1
    assert averages != [row["val_main_accuracy"] for row in rows]
    for name, scores in (("best.keras", averages), ("raw.keras", [row["val_main_accuracy"] for row in rows])):
        model = keras.saving.load_model(folder / name, compile=False)
        predictions = predict(model, Batches(sources.load(recipe).validation, recipe).evaluation())
        # The bfloat16 of training may change the prediction of single images.
        assert score(predictions)["main"]["top1"] == pytest.approx(max(scores), abs=0.03)
        assert not model.compiled


def test_the_auxiliary_weight_falls_to_zero(finished):
    for row in history(finished[0]):
        weight = 0.3 * (1 - row["epoch"] / 3)
        assert row["loss"] == pytest.approx(row["main_loss"] + weight * (row["aux1_loss"] + row["aux2_loss"]), rel=1e-3)


def test_evaluate_gives_the_numbers_of_the_run(finished):
    folder, metrics, _ = finished
    result = evaluate(folder)
    assert (result["split"], result["images"]) == ("test[:100]", 100)
    for head, scores in result["heads"].items():
        intervals, expected = scores.pop("intervals"), dict(metrics["heads"][head])
        for name, interval in expected.pop("intervals").items():
            assert intervals[name] == pytest.approx(interval, abs=1e-5)
        assert scores == pytest.approx(expected, abs=1e-5)
    assert list(metrics["classes"]) == DIGITS
    assert result["classes"] == metrics["classes"]


def test_an_existing_run_is_refused_and_overwritten_on_demand(finished, tmp_path):
    folder, recipe = tmp_path / "run", finished[2]
    shutil.copytree(finished[0], folder)
    before = (folder / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match=r"new folder \(or --overwrite\).*finished run"):
        train(recipe, folder)
    with pytest.raises(ValueError, match="source"):
        train(dataclasses.replace(recipe, source="digitz"), folder, overwrite=True)
    with pytest.raises(ValueError, match="at least"):
        train(dataclasses.replace(recipe, image_size=8), folder, overwrite=True)
    with RunFolder(folder).locked(), pytest.raises(ValueError, match="no run is using"):
        train(recipe, folder, overwrite=True)
    assert (folder / "metrics.json").read_bytes() == before
    short = Recipe(
        data_dir=recipe.data_dir, variant="plain", image_size=32, width_multiplier=0.1, epochs=1, warmup_epochs=0,
        train_split="train[:64]", test_split="test[:9]", aux=False,
    )  # fmt: skip
    metrics = train(short, folder, overwrite=True)
    assert (metrics["epochs"], set(metrics["heads"])) == (1, {"main"})
    assert not (folder / "raw.keras").exists()


def test_a_finished_run_is_refused_before_any_image_is_read(finished, monkeypatch):
    folder, _, recipe = finished
    monkeypatch.setattr(sources, "load", lambda recipe: pytest.fail("the source was read"))
    with pytest.raises(ValueError, match="which holds a finished run"):
        train(recipe, folder)


def test_a_folder_that_is_no_run_is_never_replaced(recipe, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="left alone"):
        train(recipe, tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="which is a file"):
        train(recipe, tmp_path / "thesis.tex", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match=r"folder of a run.*recipe\.json"):
        evaluate(tmp_path)


def test_bad_arguments_write_nothing(recipe, tmp_path):
    folder = tmp_path / "run"
    for change in ({"source": "nothing"}, {"variant": "papr"}, {"stem": "big"}, {"test_split": "tset"}):
        with pytest.raises(ValueError, match="Expected"):
            train(dataclasses.replace(recipe, **change), folder)
    assert not folder.exists()


def test_a_folder_trains_without_its_unreadable_images_up_to_a_fraction(tmp_path):
    suffixes = (".jpg", ".png", ".webp", ".bmp", ".gif")
    source = make_folder(tmp_path / "images", ("train", "val"), count=12, suffixes=suffixes)
    image = tmp_path / "images" / "train" / "cat" / "0.jpg"
    image.write_bytes(image.read_bytes()[:-600])
    recipe = Recipe(
        source=source,
        variant="plain",
        image_size=32,
        width_multiplier=0.1,
        aux=False,
        epochs=1,
        batch_size=4,
        flip=True,
    )
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=r"at most 1.0% unreadable images .*: 1 of \d+ in .*cat/0\.jpg"):
        train(recipe, folder)
    assert not folder.exists()
    metrics = train(dataclasses.replace(recipe, unreadable=0.5), folder)
    assert [name for names in metrics["unreadable"].values() for name in names] == [str(image)]
    assert (metrics["images"], metrics["splits"]["test"]) == (24, "val")
    assert RunFolder(folder).model().spec.input_shape == (32, 32, 3)


def _short(recipe, variant="plain"):
    """The recipe with two steps an epoch and one head."""
    return dataclasses.replace(recipe, variant=variant, aux=False, train_split="train[:128]")


class StopAfter(keras.callbacks.Callback):
    """Interrupts a run as Ctrl-C does, in the first step after so many epochs."""

    def __init__(self, epochs):
        super().__init__()
        self._epochs, self._done = epochs, 0

    def on_epoch_end(self, epoch, logs=None):
        self._done += 1

    def on_train_batch_end(self, batch, logs=None):
        if self._done == self._epochs:
            raise KeyboardInterrupt


def test_an_interrupted_run_reports_it_and_resumes(recipe, tmp_path):
    recipe, folder = _short(recipe), tmp_path / "run"
    run = RunFolder(folder)
    run.create(recipe, recipe_spec(recipe, 1, 10), DIGITS)  # as if killed in its first epoch
    with pytest.raises(ValueError, match="trained model"):
        run.model()
    with pytest.raises(KeyboardInterrupt, match=r"after 2 epochs; its best model, of epoch \d, is in"):
        train(recipe, folder, show=lambda *_: StopAfter(2))
    assert (run.metrics()["status"], run.metrics()["epochs"]) == ("interrupted", 2)
    assert run.model().count_params() > 0
    assert not list(folder.glob(".*part*"))
    with pytest.raises(ValueError, match=r"a run with learning_rate 0\.1, not 0\.2"):
        train(dataclasses.replace(recipe, learning_rate=0.2), folder)
    before = history(folder)
    metrics = train(recipe, folder, show=lambda *_: StopAfter(2))  # one epoch is left
    assert (metrics["status"], metrics["epochs"]) == ("finished", 3)
    assert history(folder)[:2] == before
    assert len(history(folder)) == 3


class InSecondEpoch(keras.callbacks.Callback):
    """Calls a function with the model when the second epoch begins."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self._function(self.model)


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_finite_weights(recipe, tmp_path):
    def poison(model):
        kernel = model.get_layer("inception_5b_1x1").kernel
        kernel.assign(kernel * float("nan"))

    folder = tmp_path / "run"
    with pytest.raises(
        ValueError, match=r"finite loss.*nan at step 3 \(epoch 2\), learning rate 0\.0854\..*epoch 1, is in"
    ):
        train(_short(recipe, variant="batchnorm"), folder, show=lambda *_: InSecondEpoch(poison))
    assert RunFolder(folder).metrics()["status"] == "failed"
    assert all(np.isfinite(w).all() for w in RunFolder(folder).model().get_weights())
    assert saved_position(folder) == (1, 0)


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(recipe, tmp_path):
    """From the second epoch on the system refuses files above a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "run"
    try:
        with pytest.raises(OSError, match=r"Cannot write .*what was there stays whole"):
            train(
                _short(recipe),
                folder,
                show=lambda *_: InSecondEpoch(lambda model: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run = RunFolder(folder)
    assert run.metrics()["status"] == "failed"
    assert "Cannot write" in run.metrics()["error"]
    assert run.model().count_params() > 0
    assert saved_position(folder) == (1, 0)

"""Real runs on the real digits, small enough for a test."""

import csv
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training import evaluate
from training.recipe import PRESETS, Recipe
from training.run import RunFolder
from training.train import train

from .test_sources import make_folder


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
    folder = tmp_path_factory.mktemp("runs") / "finished"
    metrics = train(recipe, folder, command="googlenet train")
    return folder, metrics


def test_a_run_leaves_everything_in_its_folder(finished, recipe):
    folder, metrics = finished
    names = {path.name for path in folder.iterdir()}
    files = {"recipe.json", "spec.json", "classes.txt", "history.csv", "best.keras", "metrics.json"}
    assert names == files | {"tensorboard", "report"}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert (metrics["status"], metrics["epochs"], metrics["images"]) == ("finished", 3, 100)
    assert metrics["command"] == "googlenet train"
    assert set(metrics["heads"]) == {"main", "aux1", "aux2"}
    assert RunFolder(folder).recipe() == recipe
    assert RunFolder(folder).classes() == [str(d) for d in range(10)]
    assert list(folder.glob("tensorboard/**/events*"))
    with (folder / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert len(history) == 3
    assert float(history[-1]["main_loss"]) < float(history[0]["main_loss"])


def test_the_kept_model_is_that_of_the_best_epoch(finished):
    folder, metrics = finished
    with (folder / "history.csv").open() as file:
        scores = [float(row["val_main_accuracy"]) for row in csv.DictReader(file)]
    assert metrics["best_epoch"] == max(range(3), key=lambda epoch: (scores[epoch], epoch)) + 1
    validation = evaluate.evaluate(folder, "train[90%:]")
    assert validation["heads"]["main"]["top1"] == pytest.approx(max(scores), abs=1e-6)
    assert not RunFolder(folder).model().compiled


def test_evaluate_gives_the_numbers_of_the_run_again(finished):
    folder, metrics = finished
    result = evaluate.evaluate(folder)
    assert (result["split"], result["images"]) == ("test[:100]", 100)
    for head, scores in result["heads"].items():
        intervals, expected = scores.pop("intervals"), dict(metrics["heads"][head])
        for name, interval in expected.pop("intervals").items():
            assert intervals[name] == pytest.approx(interval, abs=1e-5)
        assert scores == pytest.approx(expected, abs=1e-5)
    assert list(metrics["classes"]) == [str(d) for d in range(10)]
    assert result["classes"] == metrics["classes"]


@pytest.mark.parametrize("crops", [10, 144])
def test_crops_average_the_probabilities_of_every_view(finished, recipe, crops):
    from inception_v1.preprocessing import normalize
    from training import sources

    folder, _ = finished
    builder, _ = sources.load(recipe)
    model = RunFolder(folder).model()
    predictions = evaluate.predict(model, evaluate.view_batches(builder, "test[:3]", recipe, crops))
    for index, example in enumerate(builder.as_dataset("test[:3]")):
        views = evaluate.views(tf.cast(example["image"], tf.float32), 32, crops)
        each = model.predict(normalize(views, "signed"), verbose=0)
        assert predictions.labels[index] == example["label"]
        for head, probabilities in each.items():
            np.testing.assert_allclose(predictions.by_head[head][index], probabilities.mean(axis=0), atol=1e-5)
    result = evaluate.evaluate(folder, "test[:7]", crops)
    assert (result["crops"], result["images"]) == (crops, 7)
    with pytest.raises(ValueError, match="crops to be one of 1, 10, 144"):
        evaluate.evaluate(folder, crops=12)


def test_classify_agrees_with_evaluation_and_refuses_bad_files(finished, recipe, tmp_path):
    from training import pipeline, sources

    folder, _ = finished
    builder, _ = sources.load(recipe)
    example = next(iter(builder.as_dataset("test[:1]")))
    path = tmp_path / "digit.png"
    Image.fromarray(example["image"].numpy()[..., 0]).save(path)
    best = evaluate.classify(folder, [str(path)], top=3)[str(path)]
    batch = pipeline.batches(builder, "test[:1]", recipe, training=False)
    expected = evaluate.predict(RunFolder(folder).model(), batch).by_head["main"][0]
    assert [name for name, _ in best] == [str(i) for i in np.argsort(-expected)[:3]]
    assert best[0][1] == pytest.approx(expected.max(), abs=1e-5)
    path.write_bytes(b"\xff\xd8\xff")
    for bad, message in ((str(path), "JPEG, PNG"), (str(tmp_path / "absent.png"), "no file")):
        with pytest.raises(ValueError, match=message):
            evaluate.classify(folder, [bad])


def test_an_existing_run_is_refused_and_overwritten_on_demand(finished, recipe, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    before = (folder / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match=r"new folder \(or --overwrite\).*exists"):
        train(recipe, folder)
    with pytest.raises(ValueError, match="source"):
        train(dataclasses.replace(recipe, source="digitz"), folder, overwrite=True)
    with pytest.raises(ValueError, match="at least"):
        train(dataclasses.replace(recipe, image_size=8), folder, overwrite=True)
    assert (folder / "metrics.json").read_bytes() == before
    short = dataclasses.replace(recipe, epochs=1, warmup_epochs=0, train_split="train[:64]", aux=False)
    metrics = train(short, folder, overwrite=True)
    assert (metrics["epochs"], set(metrics["heads"])) == (1, {"main"})


def test_a_folder_that_is_no_run_is_never_replaced(recipe, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="left alone"):
        train(recipe, tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="which is a file"):
        train(recipe, tmp_path / "thesis.tex", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match=r"folder of a run.*recipe\.json"):
        evaluate.evaluate(tmp_path)


def test_bad_arguments_write_nothing(recipe, tmp_path):
    folder = tmp_path / "run"
    for change in ({"source": "nothing"}, {"variant": "papr"}, {"stem": "big"}, {"test_split": "tset"}):
        with pytest.raises(ValueError, match="Expected"):
            train(dataclasses.replace(recipe, **change), folder)
    assert not folder.exists()


def test_a_truncated_picture_is_named(tmp_path):
    source = make_folder(tmp_path / "pictures", count=12, suffixes=(".jpg",))
    picture = tmp_path / "pictures" / "cat" / "3.jpg"
    picture.write_bytes(picture.read_bytes()[:-600])
    recipe = Recipe(source=source, image_size=32, width_multiplier=0.1, epochs=1, batch_size=4)
    with pytest.raises(ValueError, match=r"unreadable: .*cat/3\.jpg"):
        train(recipe, tmp_path / "run")
    assert RunFolder(tmp_path / "run").metrics()["status"] == "failed"


def test_colour_folders_train_end_to_end(tmp_path):
    source = make_folder(
        tmp_path / "pictures", ("train", "val"), count=12, suffixes=(".jpg", ".png", ".webp", ".bmp", ".gif")
    )
    recipe = Recipe(source=source, image_size=32, width_multiplier=0.1, epochs=1, batch_size=4, flip=True)
    metrics = train(recipe, tmp_path / "run")
    assert (metrics["images"], metrics["splits"]["test"]) == (24, "val")
    assert RunFolder(tmp_path / "run").model().spec.input_shape == (32, 32, 3)


class StopAfter(keras.callbacks.Callback):
    """Ctrl-C in the middle of the epoch after so many."""

    def __init__(self, epochs):
        super().__init__()
        self._epochs, self._done = epochs, 0

    def on_epoch_end(self, epoch, logs=None):
        self._done += 1

    def on_train_batch_end(self, batch, logs=None):
        if self._done == self._epochs:
            raise KeyboardInterrupt


@pytest.mark.parametrize("epochs", [0, 2])
def test_an_interrupted_run_says_so_and_keeps_a_whole_model(recipe, tmp_path, epochs):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=f"after {epochs} epochs"):
        train(recipe, folder, show=lambda *_: StopAfter(epochs))
    run = RunFolder(folder)
    assert (run.metrics()["status"], run.metrics()["epochs"]) == ("interrupted", epochs)
    if epochs:
        assert evaluate.evaluate(folder)["images"] == 100
    else:
        with pytest.raises(ValueError, match="trained model"):
            run.model()
    assert not list(folder.glob(".*part*"))

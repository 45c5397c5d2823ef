"""Slimming a run: what it leaves, what it resumes, and what it refuses."""

import dataclasses
import hashlib
import importlib
import json

import keras
import pytest

import googlenet
import tuning
from inception_v1 import cost
from inception_v1.dependencies import channels
from tests.helpers.blocks import FEW
from tests.helpers.pages import Page
from tests.helpers.runs import metrics, save_run, saved_position
from training.evaluation.evaluate import evaluate
from training.run_folder import RunFolder
from tuning import allocation, sensitivity

pytestmark = pytest.mark.usefixtures("few_blocks")

SPLITS = {"train_split": "train[:64]", "validation_split": "test[:9]", "test_split": "test[:20]", "batch_size": 32}
SETTINGS = tuning.SlimSettings(keep_macs=0.7, multiple=2, images=32, epochs=1, criterion="magnitude")
slim_module = importlib.import_module("tuning.slim")  # whose name in the package is its function


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after the last epoch, so that what resumes has nothing to train."""

    def on_train_end(self, logs=None):
        raise KeyboardInterrupt


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory, data_dir):
    return save_run(tmp_path_factory.mktemp("runs") / "source", data_dir, aux=False, **SPLITS)


@pytest.fixture(scope="module")
def slimmed(source, tmp_path_factory):
    """A slimmed run that was interrupted and resumed; what the source held before; what came of the interruption."""
    before, folder = digests(source), tmp_path_factory.mktemp("runs") / "slimmed"
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in ((sensitivity, "LEVELS", (0.5,)), (allocation, "LEVELS", (0.5,))):
            patch.setattr(module, name, value)  # which takes less time
        with pytest.raises(KeyboardInterrupt, match="the same command resumes"):
            tuning.slim(source, folder, SETTINGS, show=lambda epochs, steps: Interrupt())
    interrupted = {"status": metrics(folder)["status"], "position": saved_position(folder)}
    with pytest.raises(ValueError, match=r"slimmed with other settings: epochs 1, not 3\."):
        tuning.slim(source, folder, dataclasses.replace(SETTINGS, epochs=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slim_module, "make_plan", lambda *_: pytest.fail("ranked the channels again"))
        result = tuning.slim(source, folder, SETTINGS, command="googlenet slim")
    return folder, result, before, interrupted


def test_the_slimmed_run_is_an_ordinary_run(slimmed, source):
    folder, result, before, interrupted = slimmed
    assert interrupted == {"status": "interrupted", "position": (1, 0)}
    assert digests(source) == before
    found, numbers = RunFolder(folder).model(), metrics(folder)
    assert (numbers["status"], numbers["epochs"], numbers["command"]) == ("finished", 1, "googlenet slim")
    assert saved_position(folder) == (0, 0)  # no state is left
    own = cost(RunFolder(source).model().spec).without_aux()
    assert cost(found.spec).without_aux().macs <= 0.7 * own.macs
    assert {name: len(rows) for name, rows in result["kept"].items()} == channels(found.spec)
    assert set(found.spec.widths) == {"3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"}
    assert len(found.spec.stem_widths) == 3
    assert evaluate(folder)["heads"]["main"]["top1"] == numbers["heads"]["main"]["top1"]
    recipe = RunFolder(folder).recipe()
    assert recipe.learning_rate == pytest.approx(0.2 * RunFolder(source).recipe().learning_rate)


def test_what_was_measured_is_kept_and_on_the_page(slimmed, source, capsys):
    folder, result, _, _ = slimmed
    assert result == json.loads((folder / "slimming.json").read_text())
    assert len(result["sensitivity"]) == 4 * len(FEW) + 3
    whole, *smaller = (row[0] for row in result["curve"])
    assert whole == result["networks"]["source"]["macs"] > max(smaller)
    assert result["networks"]["slimmed"]["top1"] == metrics(folder)["heads"]["main"]["top1"]
    assert 0 <= result["networks"]["source"]["top1"] <= 1
    assert result["networks"]["slimmed"]["seconds"] > 0
    (folder / "report" / "report.html").unlink()
    assert googlenet.main(["show", str(folder), "--no-open"]) == 0
    page = (folder / "report" / "report.html").read_text()
    Page(page)
    for text in ("Slimming", "ranked by magnitude", "inception_4a_5x5_reduce", f"{whole:,}"):
        assert text in page


def test_what_cannot_be_slimmed_is_refused_before_anything_is_written(source, tmp_path, data_dir):
    def refused(message, run=source, out=tmp_path / "out", **changes):
        with pytest.raises(ValueError, match=message):
            tuning.slim(run, out, dataclasses.replace(SETTINGS, **changes))
        assert not (tmp_path / "out").exists()

    refused(r"at least [\d,]+ multiply-accumulates \(keep_macs=0\.", keep_macs=0.001)
    refused("below the network's own", keep_macs=None, max_macs=1e9)
    refused("a folder other than that of the run", out=source)
    refused("holds a run|finished|new folder", out=save_run(tmp_path / "other", data_dir, **SPLITS))
    refused("which has no best.keras", save_run(tmp_path / "untrained", data_dir, model=False, **SPLITS))
    few = save_run(tmp_path / "few", data_dir, **SPLITS | {"train_split": "train[:30]"})
    refused(r"at least 32 training images.*Received: 30 in 'train\[:30\]'", few)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one budget, keep_macs or max_macs; Received: keep_macs=None, max_macs=None"),
        ({"keep_macs": 0.5, "max_macs": 10}, "one budget"),
        ({"keep_macs": 1}, "keep_macs to be a number above 0 and below 1"),
        ({"keep_macs": 0.5, "multiple": 0}, "multiple to be an integer from 1 to 256"),
        ({"keep_macs": 0.5, "criterion": "random"}, "criterion to be one of 'taylor', 'magnitude'"),
        ({"keep_macs": 0.5, "images": 8}, "images to be an integer from 32"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tuning.SlimSettings(**arguments)

"""Searches on shared weights: what is trained alone, how a killed search resumes, and what is refused."""

import dataclasses
import functools
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import googlenet
import tuning
from inception_v1.atomic_files import write_json
from inception_v1.spec import read_spec
from tests.helpers.pages import Page
from tests.helpers.runs import NAIVE, metrics, saved_position
from tests.helpers.searches import outcomes, rendered
from training.callbacks import write_history
from training.presets import PRESETS
from training.report import figures
from training.run_folder import RunFolder
from tuning import SharedSettings, shared_trials
from tuning.importance import Importance
from tuning.report import terminal, write
from tuning.search_folder import read_search

pytestmark = pytest.mark.usefixtures("few_blocks")

SETTINGS = SharedSettings(step_samples=1, statistics_images=32, retrain=1)


class Preempt(keras.callbacks.Callback):
    """SIGTERM in the first step of the second epoch, after which the state is saved."""

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self._epoch, batch) == (1, 0):
            os.kill(os.getpid(), signal.SIGTERM)


def tiny(folder, data_dir, **changes):
    """A search around a network of which every width is 8, to twice that."""
    recipe = dataclasses.replace(
        PRESETS["digits"],
        **{"data_dir": data_dir, "variant": "plain", "aux": False, "epochs": 2, "warmup_epochs": 0.5, "batch_size": 32},
        **{"train_split": "train[:64]", "validation_split": "test[:20]", "test_split": "test[:9]"},
    )
    arguments = {"network": read_spec(NAIVE), "multipliers": (1.0, 2.0), "trials": 5, "tuner": "evolution"}
    return tuning.search(folder, recipe=recipe, **arguments | {"shared": SETTINGS} | changes)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Leaves out the rendering of figures and the tracing of networks, which take most of the time."""
    tf.config.run_functions_eagerly(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "save", lambda figure, path: path.write_bytes(b"figure"))
        patch.setattr(figures, "save", lambda figure, path: path.write_bytes(b"figure"))
        yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def whole(quick, tmp_path_factory, data_dir):
    """A search that nothing interrupted."""
    folder = tmp_path_factory.mktemp("shared") / "whole"
    return folder, tiny(folder, data_dir)


def test_the_best_on_shared_weights_is_trained_alone(whole):
    folder, found = whole
    assert [(trial.status, trial.epochs) for trial in found.trials] == [("COMPLETED", 0)] * 5
    widest = RunFolder(folder / "widest").model().spec
    assert {width for row in widest.block_widths().values() for width in row} == {16}
    assert list(found.alone) == [found.ranked[0].number]
    assert found.best is found.ranked[0]
    alone = RunFolder(folder / f"alone/trial_{found.best.number}")
    assert alone.model().spec.block_widths() == found.best.spec.block_widths()
    assert alone.metrics()["status"] == "finished"
    assert read_spec(folder / "best/spec.json") == found.best.spec
    rows = Page((folder / "report/report.html").read_text("utf-8")).rows
    assert ["trial", "trained alone", "on shared weights", "rank there", "MACs"] in rows
    assert read_search(folder) == found
    number = f"{found.alone[found.best.number]:.4f}"
    assert number in rendered(terminal.alone_table(found))


def test_an_interrupted_search_resumes_within_the_shared_training(whole, data_dir, tmp_path):
    """With the same weights, hence the same scores."""
    with pytest.raises(KeyboardInterrupt, match="the same command resumes"):
        tiny(tmp_path / "s", data_dir, save_every="1", progress=lambda epochs, steps: Preempt())
    assert metrics(tmp_path / "s/widest")["status"] == "preempted"
    assert saved_position(tmp_path / "s/widest") == (1, 1)
    assert not read_search(tmp_path / "s").trials
    found = tiny(tmp_path / "s", data_dir, shared=dataclasses.replace(SETTINGS, retrain=0))
    assert outcomes(found) == outcomes(whole[1])


@pytest.fixture
def simulated(monkeypatch):
    """Scores of slices and of networks trained alone from formulas, which disagree; the runs that were trained.

    Reports have neither importances nor figures, which take longer than such a search.
    """
    trained = []

    def score(runner, widths):
        return {"val_main_accuracy": float(np.mean(widths)) / 1000, "val_loss": 1.0}

    def train(task, distribution, run, options):
        if (run / "metrics.json").is_file():
            return
        trained.append(run.path.name)
        run.create(task.recipe, task.spec, task.classes)
        accuracy = 0.5 - sum(map(sum, task.spec.block_widths().values())) / 1e5
        write_history(run / "history.csv", [{"epoch": 0, "loss": 1.0, "val_loss": 1.0, "val_main_accuracy": accuracy}])
        write_json(run / "metrics.json", {"status": "finished", "seconds": 1.0})

    scorer = property(lambda runner: functools.partial(score, runner))
    monkeypatch.setattr(shared_trials.SharedTrialRunner, "_scorer", scorer)
    monkeypatch.setattr(shared_trials, "train_untested", train)
    monkeypatch.setattr(write, "hparams", lambda *_: None)
    monkeypatch.setattr(write, "importance", lambda results: Importance((), (), (), None, 0, "Not measured."))
    monkeypatch.setattr(write, "save", lambda figure, path: path.write_bytes(b"figure"))
    return trained


def search(folder, recipe, trials=12, tuner="random", pareto=False, **shared):
    settings = {"trials": trials, "multipliers": (0.5, 1.0), "shared": SharedSettings(**shared), "pareto": pareto}
    return tuning.search(folder, recipe=recipe, tuner=tuner, **settings)


@pytest.mark.parametrize("tuner", ["bayesian", "evolution"])
def test_the_best_is_that_of_those_trained_alone(recipe, simulated, tmp_path, tuner):
    """Of which the rank check takes some in all parts of the ranking."""
    found = search(tmp_path / "s", recipe, tuner=tuner, retrain=2, rank_check=5)
    numbers = [trial.number for trial in found.ranked]
    expected = {numbers[place] for place in (0, 1, 3, 6, 8, 11)}  # both 5.5 and 2.75 are rounded to even
    assert set(found.alone) == expected
    assert sorted(simulated) == sorted(["widest", *(f"trial_{number}" for number in expected)])
    assert found.best is min((t for t in found.ranked if t.number in expected), key=lambda t: sum(map(sum, widths(t))))
    assert found.best is not found.ranked[0]
    assert read_spec(tmp_path / "s/best/spec.json") == found.best.spec
    before = list(simulated)
    more = search(tmp_path / "s", recipe, tuner=tuner, retrain=3, rank_check=5)
    assert simulated == [*before, f"trial_{numbers[2]}"]  # what was trained stays
    assert outcomes(more) == outcomes(found)


def test_of_a_front_networks_of_all_costs_are_trained_alone(recipe, simulated, tmp_path):
    found = search(tmp_path / "s", recipe, tuner="evolution", pareto=True, retrain=3)
    front = [trial.number for trial in found.front]
    assert len(front) > 3
    chosen = [front[-1], front[-1 - round((len(front) - 1) / 2)], front[0]]
    assert simulated == ["widest", *(f"trial_{number}" for number in chosen)]
    assert set(found.alone) == set(chosen)
    page = (tmp_path / "s/report/report.html").read_text("utf-8")
    assert "the red ones are others that were trained alone, chosen from the front." in page
    rows = Page(page).rows
    listed = {row[1]: row[-1] for row in rows if row[0].startswith("front/")}
    assert listed == {str(n): f"{found.alone[n]:.4f}" if n in chosen else "" for n in front}
    assert read_search(tmp_path / "s") == found


def widths(trial):
    return trial.spec.block_widths().values()


def test_without_retraining_the_best_slice_is_the_best(recipe, simulated, tmp_path):
    found = search(tmp_path / "s", recipe)
    assert simulated == ["widest"]
    assert found.best is found.ranked[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuner": "hyperband"}, "Expected another tuner with shared weights"),
        ({"also": ("learning_rate",)}, "Expected no settings of the recipe with shared weights"),
        ({"patience": 3}, "Expected no patience with shared weights"),
        ({"strategy": "mirrored"}, "Expected one process and strategy 'default' with shared weights"),
        ({"objective": "main_accuracy"}, "Expected an objective of validation (val_...) with shared weights"),
        ({"multipliers": (1.5, 2.0)}, "Expected multipliers from 0 to 16 around 1; Received: multipliers=(1.5, 2.0)."),
    ],
)
def test_what_shared_weights_cannot_do_is_refused(recipe, tmp_path, changes, message):
    with pytest.raises(ValueError, match="Expected") as error:
        tuning.search(tmp_path / "s", recipe=recipe, shared=SharedSettings(), **changes)
    assert message in str(error.value)
    assert not (tmp_path / "s").exists()


def test_workers_share_no_weights(recipe, tmp_path, monkeypatch):
    for name, value in (("TUNER_ID", "chief"), ("ORACLE_IP", "localhost"), ("ORACLE_PORT", "1")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with pytest.raises(ValueError, match="Expected one process"):
        search(tmp_path / "s", recipe)


def test_another_kind_of_search_does_not_resume_in_the_folder(recipe, simulated, tmp_path):
    search(tmp_path / "s", recipe)
    with pytest.raises(ValueError, match="a search with step_samples 2, not None"):
        tuning.search(tmp_path / "s", recipe=recipe, tuner="random", trials=12, multipliers=(0.5, 1.0))


def test_flags_that_need_shared_weights_are_refused_without(tmp_path, capsys):
    assert googlenet.main(["tune", "--rank-check", "12", "--out", str(tmp_path / "s")]) == 2
    assert "Expected --shared-weights with --rank-check" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()

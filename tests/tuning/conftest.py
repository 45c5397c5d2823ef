import contextlib
import importlib

import pytest

import tuning
from tests.helpers.searches import KEPT, ProcessKilled, SimulatedTraining
from tuning import keras_tuner_patches, trials


@pytest.fixture
def simulated(monkeypatch):
    """Lets searches take their scores from a formula, and write no report."""
    module = importlib.import_module("tuning.search")  # whose name in the package is its function
    simulated = SimulatedTraining()
    monkeypatch.setattr(trials.TrialRunner, "_train", lambda *arguments: simulated.train(*arguments))
    monkeypatch.setattr(trials, "IDLE", 0)
    monkeypatch.setattr(module, "prepare_task", lambda *_: None)
    monkeypatch.setattr(
        module, "write_search_report", lambda folder, found: simulated.reported.append(len(found.trials))
    )
    return simulated


@pytest.fixture
def search(recipe, tmp_path, simulated):
    """A search with simulated training."""

    def run(folder="search", space="branches", **changes):
        return tuning.search(tmp_path / folder, space, **{"recipe": recipe, "budget": KEPT, "trials": 8} | changes)

    return run


@pytest.fixture
def writes(monkeypatch):
    """{"left": number of files that a search writes until it dies right after the last of them}; 0 for never."""
    real, writes = keras_tuner_patches.atomic_file, {"left": 0}

    @contextlib.contextmanager
    def write_and_die(path):
        with real(path) as part:
            yield part
        writes["left"] -= 1
        if writes["left"] == 0:
            raise ProcessKilled

    monkeypatch.setattr(keras_tuner_patches, "atomic_file", write_and_die)
    return writes

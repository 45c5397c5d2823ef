"""Single trials: their scores, their failures, and when they end early or are given up."""

import contextlib
import dataclasses

import pytest

import tuning
from tests.helpers.runs import state_at
from tests.helpers.searches import ProcessKilled
from training.errors import UserError
from training.run_folder import RunFolder
from training.run_state import StateFiles
from tuning import Budget, trials
from tuning.results import last_line

pytestmark = pytest.mark.usefixtures("few_blocks")


def test_failed_trials_are_recorded_and_the_search_continues(search, simulated):
    simulated.errors = {2: ValueError("Expected a finite loss"), 4: MemoryError("too much"), 5: RuntimeError("a\nb")}
    standings = []
    found = search(tuner="random", show=standings.append)
    failed = {
        trial.number: (trial.score, last_line(trial.message)) for trial in found.trials if trial.status == "FAILED"
    }
    assert failed == {
        1: (None, "ValueError: Expected a finite loss"),
        3: (None, "MemoryError: too much"),
        4: (None, "b"),
    }
    assert [trial.number for trial in found.completed] == [0, 2, 5, 6, 7]
    assert found.best.score == max(trial.score for trial in found.completed)
    assert [standing.ended for standing in standings] == list(range(1, 9))
    assert standings[1].best.trial_id == "0"
    assert standings[-1].seconds_left == 0


def test_a_trial_that_kills_its_process_is_given_up(search, simulated):
    """As the system kills processes where memory runs out; after three times, which the message reports."""
    simulated.errors = {number: ProcessKilled() for number in (2, 3, 4)}
    real, files = trials._counted_attempt, []

    @contextlib.contextmanager
    def never_left(folder):
        entered = real(folder)
        entered.__enter__()
        files.append(entered)
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "_counted_attempt", never_left)
        for _ in range(3):
            with pytest.raises(ProcessKilled):
                search()
        found = search()
    assert last_line(found.trials[1].message).partition(": ")[2] == (
        "The process of this trial was killed 3 times in epoch 1, so that the trial is given up. "
        "The usual cause is too little memory."
    )
    assert len(found.completed) == 7


def test_a_trial_that_gets_further_each_time_is_not_given_up(tmp_path):
    run = RunFolder(tmp_path / trials.RUN)
    run.path.mkdir()
    attempts = []
    with StateFiles(run) as files:
        for step in range(2 * trials.MOST_ATTEMPTS):
            files.write(state_at(0, step))
            attempts.append(trials._counted_attempt(tmp_path))
            attempts[-1].__enter__()  # and its process is killed
    for _ in range(trials.MOST_ATTEMPTS - 1):
        attempts.append(trials._counted_attempt(tmp_path))
        attempts[-1].__enter__()
    with pytest.raises(UserError, match="killed 3 times in epoch 1"), trials._counted_attempt(tmp_path):
        pytest.fail("began")


def test_a_trial_ends_early(tmp_path, recipe):
    """Its learning rate is so low that nothing changes: of equal epochs the first counts as the best."""
    recipe = dataclasses.replace(
        recipe, learning_rate=1e-9, weight_decay=0.0, epochs=5, warmup_epochs=0, width_multiplier=0.1
    )
    found = tuning.search(tmp_path / "s", recipe=recipe, tuner="random", trials=1, patience=2)
    assert [trial.epochs for trial in found.trials] == [3], found.trials[0].message


def test_the_score_can_be_accuracy_relative_to_macs(search):
    found = search(objective="accuracy_per_mac", tuner="random", budget=Budget())
    for trial in found.trials:
        relative = trial.macs / found.trials[0].macs
        assert trial.score == pytest.approx(trial.metrics["val_main_accuracy"] / relative)
    assert found.best.macs < found.trials[0].macs


def test_a_loss_is_minimized(search):
    found = search(objective="val_loss", tuner="random")
    assert (found.direction, found.best.score) == ("min", 0.1)

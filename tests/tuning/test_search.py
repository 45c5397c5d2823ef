"""Searches: oracles and folders, with made-up trials in place of training."""

import contextlib
import csv
import dataclasses
import json
import math

import numpy as np
import pytest

import tuning
from inception_v1 import cost
from training import run_folder as runs
from training.run_folder import RunFolder
from tuning import oracles
from tuning import search as tuner
from tuning.reading import last_line
from tuning.space import Budget

KEPT = Budget(keep_macs=0.05)


class MadeUp:
    """In place of training: an accuracy that rises to what the multipliers say, best at 1.4, 0.7, 1.4, ...

    Attributes:
        trained: (folder, values, epochs that were there, last epoch) of each call.
        trouble: what the n-th call raises.
        reported: trials of each report.
    """

    def __init__(self):
        self.trained, self.trouble, self.reported = [], {}, []

    def train(self, tuner, folder, values, until):
        history = folder / runs.HISTORY
        there = len(history.read_text().splitlines()) - 1 if history.is_file() else 0
        self.trained.append((folder, values, there, until))
        if len(self.trained) in self.trouble:
            raise self.trouble[len(self.trained)]
        run = RunFolder(folder)
        run.create(tuner._space.recipe_of(values), tuner._space.network(values), list("0123456789"))
        off = [(math.log(value) - 0.35 * (-1) ** place) ** 2 for place, value in enumerate(values.values())]
        goal = 0.9 - sum(off) / len(off)
        rows = [
            {"epoch": e, "val_main_accuracy": goal * (1 - 0.5 ** (e + 1)), "loss": 0.2, "val_loss": 0.1}
            for e in range(until)
        ]
        with (run / runs.HISTORY).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        runs.write_json(run / runs.METRICS, {"status": "finished", "epochs": until, "seconds": 1.0})


@pytest.fixture
def made_up(monkeypatch):
    made_up = MadeUp()
    monkeypatch.setattr(tuner._Tuner, "_train", lambda *arguments: made_up.train(*arguments))
    monkeypatch.setattr(tuner.train, "prepared", lambda *_: None)
    monkeypatch.setattr(tuner.report, "write", lambda folder, found: made_up.reported.append(len(found.trials)))
    monkeypatch.setattr(tuner, "IDLE", 0)
    return made_up


@pytest.fixture
def search(recipe, tmp_path, made_up):
    """A search of made-up trials."""

    def run(folder="search", space="branches", **changes):
        return tuning.search(tmp_path / folder, space, **{"recipe": recipe, "budget": KEPT, "trials": 8} | changes)

    return run


def told(found):
    return [(trial.number, trial.status, trial.values, trial.score) for trial in found.trials]


@pytest.mark.parametrize("name", oracles.TUNERS)
@pytest.mark.parametrize("space", ["branches", "stages"])
def test_each_tuner_starts_from_the_paper_and_keeps_the_budget(name, space, search):
    found = search(space=space, tuner=name, trials=14)
    assert [trial.number for trial in found.trials] == list(range(14))
    assert {trial.status for trial in found.trials} == {"COMPLETED"}
    start = found.trials[0]
    assert set(start.values.values()) == {1.0}
    for trial in found.trials:
        counted = cost(trial.spec).without_aux()
        assert (trial.params, trial.macs) == (counted.params, counted.macs)
        assert abs(trial.macs / start.macs - 1) <= 0.05
    if name != "hyperband":  # which goes on with some of them
        assert len({str(trial.spec.block_widths()) for trial in found.trials}) == 14


@pytest.mark.parametrize("name", oracles.TUNERS)
def test_the_same_seed_makes_the_same_trials(name, search, recipe):
    first, second, other = (
        search(str(number), tuner=name, recipe=dataclasses.replace(recipe, seed=seed))
        for number, seed in enumerate((0, 0, 1))
    )
    assert told(first) == told(second)
    assert (told(first) == told(other)) is (name == "grid")


@pytest.mark.parametrize(
    ("name", "space", "trials"), [("bayesian", "branches", 16), ("bayesian", "stages", 30), ("evolution", "stages", 60)]
)
def test_a_search_that_learns_beats_chance(name, space, trials, search, recipe):
    """By the best score, which random search knows only to approach; mean of two seeds."""
    best = {name: [], "random": []}
    for one, scores in best.items():
        for seed in range(2):
            changes = {"recipe": dataclasses.replace(recipe, seed=seed), "trials": trials, "tuner": one}
            scores.append(search(f"{one}{seed}", space, **changes).best.score)
    assert np.mean(best[name]) > np.mean(best["random"]) + 0.005


class Died(BaseException):
    """The process was killed."""


@pytest.mark.parametrize("name", oracles.TUNERS)
def test_a_search_killed_at_any_write_ends_like_one_that_was_not(name, search, made_up, monkeypatch, tmp_path):
    whole = search("whole", tuner=name)
    real, writes = oracles.written_whole, {"left": 0}

    @contextlib.contextmanager
    def dying(path):
        """Writes a file, and dies after the one whose turn it is."""
        with real(path) as part:
            yield part
        writes["left"] -= 1
        if writes["left"] == 0:
            raise Died

    monkeypatch.setattr(oracles, "written_whole", dying)
    deaths = 0
    for left in range(1, 100):
        writes["left"] = left
        try:
            found = search("broken", tuner=name)
            break
        except Died:
            deaths += 1
    assert deaths > 5
    assert told(found) == told(whole)
    ended = json.loads((tmp_path / "broken/trials/oracle.json").read_text())["end_order"]
    assert sorted(map(int, ended)) == list(range(8))  # none is counted twice


def test_failed_trials_are_recorded_and_the_search_goes_on(search, made_up):
    made_up.trouble = {2: ValueError("Expected a finite loss"), 4: MemoryError("too much"), 5: RuntimeError("a\nb")}
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


def test_too_many_failures_in_a_row_end_the_search(search, made_up):
    made_up.trouble = {number: ValueError("Expected a finite loss") for number in (2, 4, 5)}
    with pytest.raises(ValueError, match=r"fewer than 2 failed trials in a row .*: 2, the last with .*a finite loss'"):
        search(max_failures=2)
    assert len(made_up.trained) == 5
    with pytest.raises(ValueError, match="fewer than 2 failed trials in a row"):
        search(max_failures=2)
    assert len(made_up.trained) == 5
    assert [t.status[0] for t in search(max_failures=3).trials] == list("CFCFFCCC")
    assert made_up.reported == [5, 5, 8]


def test_what_ended_before_ctrl_c_is_reported(search, made_up):
    made_up.trouble = {4: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        search()
    assert made_up.reported == [4]
    assert [trial.status for trial in search().trials] == ["COMPLETED"] * 8
    assert made_up.reported == [4, 8]


def test_a_disk_that_is_full_ends_the_search_at_once(search, made_up):
    made_up.trouble = {3: OSError(28, "No space left on device")}
    with pytest.raises(OSError, match="No space left"):
        search()
    assert made_up.reported == [3]
    assert told(search()) == told(search("whole"))


def test_a_trial_that_takes_its_process_along_is_given_up(search, made_up):
    """As the system does where memory ends; three times, which it says."""
    made_up.trouble = {number: Died() for number in (2, 3, 4)}
    real, files = tuner._counted, []

    @contextlib.contextmanager
    def killed(folder):
        entered = real(folder)
        entered.__enter__()
        files.append(entered)  # never left
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner, "_counted", killed)
        for _ in range(3):
            with pytest.raises(Died):
                search()
        found = search()
    assert (
        last_line(found.trials[1].message)
        == "ValueError: Expected the process to outlive epoch 1; Received: 3 kills in it."
    )
    assert len(found.completed) == 7


def test_more_trials_go_on_with_a_search(search, made_up):
    short = search(trials=5)
    assert told(search(trials=12))[:5] == told(short)
    assert len(made_up.trained) == 12
    assert told(search(trials=12)) == told(tuner.read(made_up.trained[0][0].parents[2]))
    assert len(made_up.trained) == 12


def test_hyperband_goes_on_with_the_best(search, made_up, recipe):
    found = search(tuner="hyperband", trials=None, recipe=dataclasses.replace(recipe, epochs=9))
    begun = {}
    for _, values, there, until in made_up.trained:
        begun.setdefault(tuple(values.values()), []).append((there, until))
    assert {step for steps in begun.values() for step in steps} == {(0, 1), (1, 3), (3, 9), (0, 3), (0, 9)}
    assert max(begun.values(), key=len) == [(0, 1), (1, 3), (3, 9)]
    assert found.best.epochs == 9


def test_accuracy_for_the_work(search):
    found = search(objective="accuracy_per_mac", tuner="random", budget=Budget())
    for trial in found.trials:
        share = trial.macs / found.trials[0].macs
        assert trial.score == pytest.approx(trial.metrics["val_main_accuracy"] / share)
    assert found.best.macs < found.trials[0].macs


def test_a_loss_is_minimised(search):
    found = search(objective="val_loss", tuner="random")
    assert (found.direction, found.best.score) == ("min", 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "branch"}, "Did you mean 'branches'?"),
        ({"tuner": "bayes"}, "Did you mean 'bayesian'?"),
        ({"trials": 0}, "trials to be 1 or more; Received: trials=0"),
        ({"trials": None}, "a number of trials with tuner 'bayesian'"),
        ({"max_failures": 0}, "max_failures to be 1 or more"),
        ({"patience": 0}, "patience to be 1 or more"),
        ({"strategy": "multiworker"}, "strategy to be one of 'default', 'mirrored', 'tpu'"),
        (
            {"objective": "val_accuracy"},
            "'val_main_accuracy', 'val_main_top5_accuracy', 'val_loss', 'accuracy_per_mac'",
        ),
        ({"objective": "val_aux1_accuracy"}, "objective to be one of"),  # there are no such heads
        ({"budget": Budget(max_macs=1000.0)}, "its smallest network has"),
        ({"datasets": (1, 2)}, "Expected a network"),
    ],
)
def test_bad_input_is_refused_before_anything_is_done(changes, message, search, made_up, tmp_path):
    with pytest.raises(ValueError, match="Expected") as error:
        search(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not made_up.trained
    assert not (tmp_path / "search").exists()


def test_the_folder_of_another_search_is_refused_with_the_difference(search, recipe, tmp_path, made_up):
    search(trials=2)
    for changes, message in [
        ({"tuner": "random"}, "a search with tuner 'bayesian', not 'random'."),
        ({"space": "stages"}, "a search with space 'branches', not 'stages'."),
        ({"budget": Budget(keep_macs=0.1)}, "a search with keep_macs 0.05, not 0.1."),
        ({"recipe": dataclasses.replace(recipe, seed=1, epochs=5)}, "a search with epochs 4, not 5, seed 0, not 1."),
    ]:
        with pytest.raises(ValueError, match="Expected a new folder for the search") as error:
            search(**changes)
        assert str(error.value).endswith(message)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"holds no search\.json and is left alone"):
        search("full")
    with pytest.raises(ValueError, match="is a file"):
        search("full/letter.txt")
    with RunFolder(tmp_path / "search").locked(), pytest.raises(ValueError, match="no run is using"):
        search(trials=2)
    assert len(made_up.trained) == 2

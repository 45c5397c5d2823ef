"""What each oracle hands out: budgets, seeds, learning, and files that a kill leaves whole."""

import dataclasses
import json

import numpy as np
import pytest

from inception_v1 import cost
from tests.helpers.searches import ProcessKilled, outcomes
from tuning import oracles


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
    if name != "hyperband":  # which continues some of them
        assert len({str(trial.spec.block_widths()) for trial in found.trials}) == 14


@pytest.mark.parametrize("name", oracles.TUNERS)
def test_the_same_seed_makes_the_same_trials(name, search, recipe):
    first, second, other = (
        search(str(number), tuner=name, recipe=dataclasses.replace(recipe, seed=seed))
        for number, seed in enumerate((0, 0, 1))
    )
    assert outcomes(first) == outcomes(second)
    assert (outcomes(first) == outcomes(other)) is (name == "grid")


@pytest.mark.parametrize(("name", "space", "trials"), [("bayesian", "branches", 16), ("evolution", "stages", 60)])
def test_a_search_that_learns_beats_chance(name, space, trials, search, recipe):
    """By the best score, which random search only approaches; mean of two seeds."""
    best = {name: [], "random": []}
    for tuner, scores in best.items():
        for seed in range(2):
            changes = {"recipe": dataclasses.replace(recipe, seed=seed), "trials": trials, "tuner": tuner}
            scores.append(search(f"{tuner}{seed}", space, **changes).best.score)
    assert np.mean(best[name]) > np.mean(best["random"]) + 0.005


@pytest.mark.parametrize("name", oracles.TUNERS)
def test_a_search_killed_at_any_write_ends_like_one_that_was_not(name, search, writes, tmp_path):
    whole = search("whole", tuner=name)
    deaths = 0
    for left in range(1, 100):
        writes["left"] = left
        try:
            found = search("interrupted", tuner=name)
            break
        except ProcessKilled:
            deaths += 1
    assert deaths > 5
    assert outcomes(found) == outcomes(whole)
    ended = json.loads((tmp_path / "interrupted/trials/oracle.json").read_text())["end_order"]
    assert sorted(map(int, ended)) == list(range(8))  # none is counted twice


def test_too_many_failures_in_a_row_end_the_search(search, simulated):
    simulated.errors = {number: ValueError("Expected a finite loss") for number in (2, 4, 5)}
    with pytest.raises(ValueError, match=r"fewer than 2 failed trials in a row .*: 2, the last with .*a finite loss'"):
        search(max_failures=2)
    assert len(simulated.calls) == 5
    with pytest.raises(ValueError, match="fewer than 2 failed trials in a row"):
        search(max_failures=2)
    assert len(simulated.calls) == 5
    assert [t.status[0] for t in search(max_failures=3).trials] == list("CFCFFCCC")
    assert simulated.reported == [5, 5, 8]


def test_hyperband_continues_the_best(search, simulated, recipe):
    found = search(tuner="hyperband", trials=None, recipe=dataclasses.replace(recipe, epochs=9))
    begun = {}
    for _, values, done, until in simulated.calls:
        begun.setdefault(tuple(values.values()), []).append((done, until))
    assert {step for steps in begun.values() for step in steps} == {(0, 1), (1, 3), (3, 9), (0, 3), (0, 9)}
    assert max(begun.values(), key=len) == [(0, 1), (1, 3), (3, 9)]
    assert found.best.epochs == 9

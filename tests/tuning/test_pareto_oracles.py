"""Searches for a front: what they hand out, that they beat chance, resume after a kill, and what they leave."""

import csv
import dataclasses
import math

import keras_tuner as kt
import numpy as np
import pytest

from inception_v1.spec import read_spec
from tests.helpers.latency import made_table
from tests.helpers.pages import Page
from tests.helpers.searches import PAPER, ProcessKilled, make_results, make_trial, outcomes
from training.presets import PRESETS
from tuning import Budget
from tuning.pareto import hypervolume
from tuning.pareto_oracles import TUNERS, costs_of, largest_cost, make_oracle
from tuning.report import write
from tuning.search_folder import read_search
from tuning.space import Space

FREE = Budget()
LEARNING = ("bayesian", "evolution")


def known_score(values):
    """An accuracy that is best at the multipliers 1.4, 0.7, 1.4, ..."""
    distances = [(math.log(value) - 0.35 * (-1) ** place) ** 2 for place, value in enumerate(values.values())]
    return 0.9 - sum(distances) / len(distances)


def reached(tuner, space, trials, folder):
    """The hypervolume of so many trials that an oracle hands out."""
    oracle = make_oracle(tuner, space, kt.Objective("val_main_accuracy", "max"), trials, 3)
    oracle._set_project_dir(folder, "trials")
    samples = []
    for _ in range(trials):
        trial = oracle.create_trial("worker")
        samples.append(trial.hyperparameters.values)
        oracle.update_trial(trial.trial_id, {"val_main_accuracy": known_score(samples[-1])})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return volume(samples, space)


def volume(samples, space):
    return hypervolume(costs_of(space, samples), np.array(list(map(known_score, samples))), (largest_cost(space), 0.3))


@pytest.mark.parametrize(("name", "space", "trials"), [("bayesian", "branches", 16), ("evolution", "stages", 60)])
def test_a_search_for_a_front_comes_nearer_to_the_known_one_than_chance(name, space, trials, tmp_path):
    """The known one is that of 20,000 samples; mean of two seeds."""
    fractions = {name: [], "random": []}
    for seed in range(2):
        recipe = dataclasses.replace(PRESETS["digits"], seed=seed)
        chosen = Space(space, PAPER, recipe)
        best = volume(chosen.sample(10_000, 0) + chosen.sample_costs(10_000, 1), chosen)
        for tuner, found in fractions.items():
            found.append(reached(tuner, chosen, trials, tmp_path / f"{tuner}{seed}") / best)
    assert max(map(max, fractions.values())) < 1.05
    assert np.mean(fractions[name]) > np.mean(fractions["random"]) + 0.02


@pytest.mark.parametrize("name", LEARNING)
def test_milliseconds_are_the_cost_where_there_is_a_table(name, search):
    start = search("start", tuner="random", budget=FREE, trials=1).trials[0].spec
    table = made_table(start)
    bound = 1000 * 1.1 * table.seconds(start)
    found = search(tuner=name, budget=Budget(max_latency_ms=bound), latency=table, pareto=True, trials=9)
    assert all(trial.cost <= bound for trial in found.trials)
    costs = [trial.cost for trial in found.front]
    assert len(costs) > 2
    assert costs == sorted(costs)
    assert max(trial.cost for trial in found.trials) > 1.1 * min(trial.cost for trial in found.trials)


@pytest.mark.parametrize("name", LEARNING)
def test_a_killed_search_for_a_front_ends_like_one_that_was_not(name, search, writes):
    whole = search("whole", tuner=name, budget=FREE, pareto=True, trials=9)
    for left in (22, 6):  # some of them when the tuner has begun to learn
        writes["left"] = left
        with pytest.raises(ProcessKilled):
            search("interrupted", tuner=name, budget=FREE, pareto=True, trials=9)
    writes["left"] = 10**6
    found = search("interrupted", tuner=name, budget=FREE, pareto=True, trials=9)
    assert outcomes(found) == outcomes(whole)
    assert outcomes(whole) != outcomes(search("plain", tuner=name, budget=FREE, trials=9))


@pytest.mark.parametrize("name", sorted(set(TUNERS) - set(LEARNING)))
def test_tuners_that_ignore_scores_are_taken(name, search, tmp_path):
    found = search(tuner=name, budget=FREE, pareto=True, trials=3)
    assert found.pareto
    assert read_search(tmp_path / "search") == found
    with pytest.raises(ValueError, match="a search with pareto True, not None"):
        search(tuner=name, budget=FREE, trials=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuner": "hyperband"}, "Expected a tuner among 'bayesian', 'evolution', 'random', 'grid' with pareto"),
        ({"budget": Budget(keep_macs=0.1)}, "networks of one cost have no front; Received: keep_macs=0.1."),
    ],
)
def test_a_search_without_a_front_is_refused(changes, message, search, simulated):
    with pytest.raises(ValueError, match="Expected") as error:
        search(**{"budget": FREE, "pareto": True} | changes)
    assert message in str(error.value)
    assert not simulated.calls


@pytest.fixture
def unrendered(monkeypatch):
    monkeypatch.setattr(write, "save", lambda figure, path: path.write_bytes(b"figure"))


def test_the_report_holds_the_front_and_its_growth(tmp_path, unrendered):
    scores, macs = (0.5, 0.8, 0.7, 0.6, 0.9), (100, 90, 80, 95, 120)
    trials = [make_trial(n, score, macs=cost) for n, (score, cost) in enumerate(zip(scores, macs))]
    found = make_results(*trials, settings={"pareto": True})
    write.write_search_report(tmp_path, found)
    for place, number in enumerate((2, 1, 4)):
        assert read_spec(tmp_path / f"front/{place:02d}/spec.json") == trials[number].spec
    assert read_spec(tmp_path / "best/spec.json") == trials[4].spec
    with (tmp_path / "trials.csv").open() as file:
        grown = [float(row["hypervolume"]) for row in csv.DictReader(file)]
    areas = [0, 30 * 0.3, 30 * 0.3 + 10 * 0.2, 30 * 0.3 + 10 * 0.2, 30 * 0.3 + 10 * 0.2]  # to the reference (120, 0.5)
    assert grown == pytest.approx([area / 120 for area in areas])
    page = Page((tmp_path / "report/report.html").read_text("utf-8"))
    assert ["front/00", "2", "0.7000"] in [row[:3] for row in page.rows]
    assert "hypervolume.png" in {file.name for file in (tmp_path / "report").iterdir()}
    write.write_search_report(tmp_path, make_results(trials[0], trials[1], settings={"pareto": True}))
    assert [path.name for path in (tmp_path / "front").iterdir()] == ["00"]
    other = tmp_path / "other"
    write.write_search_report(other, make_results(*trials))
    assert not (other / "front").exists()
    assert not (other / "report/hypervolume.png").exists()

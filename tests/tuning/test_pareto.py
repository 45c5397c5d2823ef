"""Fronts, hypervolumes and expected improvements, each against a slow definition of it."""

import numpy as np
import pytest

from tuning.pareto import contributions, expected_improvement, front_of, hypervolume, ranks

REFERENCE = (1.0, 0.0)


def points(count, seed):
    return np.random.default_rng(seed).uniform(size=(2, count)).round(1)  # with ties


def area(costs, gains, reference=REFERENCE, steps=40):
    """The share of a fine grid that some point dominates."""
    x = (np.arange(steps) + 0.5) / steps * reference[0]
    y = reference[1] + (np.arange(steps) + 0.5) / steps * (1 - reference[1])
    dominated = (costs[:, None, None] <= x[:, None]) & (gains[:, None, None] >= y)
    return dominated.any(axis=0).mean() * reference[0] * (1 - reference[1])


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40])
@pytest.mark.parametrize("reference", [(1.0, 0.0), (0.8, 0.2)])
def test_the_hypervolume_is_the_dominated_area(count, reference):
    for seed in range(5):
        costs, gains = points(count, seed)
        assert hypervolume(costs, gains, reference) == pytest.approx(area(costs, gains, reference), abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_fronts_hold_what_none_beats(count):
    for seed in range(5):
        costs, gains = points(count, seed)
        beaten = [
            any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in zip(costs, gains))
            for cost, gain in zip(costs, gains)
        ]
        best = {(c, g) for c, g, lost in zip(costs, gains, beaten) if not lost}
        front = front_of(costs, gains)
        assert [(c, g) for c, g in zip(costs[front], gains[front])] == sorted(best)
        rank = ranks(costs, gains)
        assert {(c, g) for c, g in zip(costs[rank == 0], gains[rank == 0])} == best
        for one, (cost, gain) in enumerate(
            zip(costs, gains)
        ):  # each point but the first front's is beaten by one before
            assert rank[one] == 0 or any(
                c <= cost and g >= gain and rank[other] == rank[one] - 1
                for other, (c, g) in enumerate(zip(costs, gains))
            )


def test_contributions_are_what_the_front_loses_with_a_point():
    costs, gains = np.array([0.1, 0.3, 0.5, 0.9]), np.array([0.2, 0.5, 0.6, 0.8])
    found = contributions(costs, gains, REFERENCE)
    assert found.tolist() == [np.inf, pytest.approx(0.2 * 0.3), pytest.approx(0.4 * 0.1), np.inf]


@pytest.mark.parametrize("count", [0, 1, 6])
def test_the_expected_improvement_is_the_mean_growth(count):
    rng = np.random.default_rng(0)
    front = tuple(points(count, 1))
    costs, means, deviations = rng.uniform(0, 1.1, 5), rng.uniform(0, 1, 5), rng.uniform(0.01, 0.3, 5)
    found = expected_improvement(costs, means, deviations, front, REFERENCE)
    before = hypervolume(*front, REFERENCE)
    for cost, mean, deviation, expected in zip(costs, means, deviations, found):
        gains = mean + deviation * np.random.default_rng(1).normal(size=4000)
        grown = [
            hypervolume(np.append(front[0], cost), np.append(front[1], gain), REFERENCE) - before for gain in gains
        ]
        assert expected == pytest.approx(np.mean(grown), abs=4 * np.std(grown) / len(gains) ** 0.5 + 1e-9)

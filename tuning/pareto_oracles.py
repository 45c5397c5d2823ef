"""Oracles that aim at the whole front of accuracy and cost: what they maximize is its hypervolume.

The cost of a sample is known before it is trained, by counting or from a latency table; its score alone is uncertain.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.errors import UserError
from tuning import oracles
from tuning.budget import Budget
from tuning.oracles import CANDIDATES, POPULATION, REDRAWS, TOURNAMENT, Bayesian, Evolution, Grid, InBudget, Random
from tuning.pareto import contributions, expected_improvement, ranks
from tuning.results import COMPLETED, worst_shown
from tuning.space import Space

PARENTS = 8  # on the front, near which candidates lie


class ParetoBayesian(Bayesian):
    """The expected growth of the hypervolume, by a Gaussian process of the score. The front that it is to exceed has
    the scores that the process takes for true, so that a lucky one does not hide others."""

    def choose(self, surface: Any, done: Sequence[Any], candidates: Sequence[dict[str, Any]]) -> np.ndarray:
        values = [trial.hyperparameters.values for trial in done]
        known = -surface.predict(self.vectors(values))
        mean, deviation = surface.predict(self.vectors(candidates), return_std=True)
        own, costs = (costs_of(self.space, samples) for samples in (values, candidates))
        reference = (largest_cost(self.space), float(worst_shown(known, "max")))
        growth = expected_improvement(costs, -mean, deviation, (own, known), reference)
        return np.argsort(-growth, kind="stable")

    def candidates(self, done: Sequence[Any], seed: int) -> list[dict[str, Any]]:
        """Random samples of all costs, and neighbors of the front."""
        front = _survivors(self, done, PARENTS)
        found = self.space.sample(CANDIDATES // 2, seed) + self.space.sample_costs(CANDIDATES, seed)
        for trial in front:
            found += self.space.neighbors(trial.hyperparameters.values, CANDIDATES // PARENTS, seed)
        return found


class ParetoEvolution(Evolution):
    """One change in one of a population that is sorted by fronts and, on one front, by what each adds to its
    hypervolume (SMS-EMOA; Beume et al., 2007)."""

    def _next_values(self, number: int) -> dict[str, Any] | None:
        rng = np.random.default_rng((self.seed, number))
        done = [self.trials[i] for i in self.end_order if self.trials[i].status == COMPLETED]
        if number < POPULATION or not done:
            drawn = self.space.sample_costs(REDRAWS, int(rng.integers(2**31)))
            return self._first_new(drawn)
        living = _survivors(self, done, POPULATION)  # the best first
        parent = living[min(rng.integers(len(living), size=TOURNAMENT))]
        near = self.space.neighbors(parent.hyperparameters.values, REDRAWS, int(rng.integers(2**31)))
        return self._first_new(near)


TUNERS: dict[str, type[InBudget]] = {
    "bayesian": ParetoBayesian,
    "evolution": ParetoEvolution,
    "random": Random,
    "grid": Grid,
}
make_oracle = functools.partial(oracles.make_oracle, tuners=TUNERS)


def check_settings(tuner: str, budget: Budget) -> None:
    """Raises UserError where a search for a front makes no sense."""
    if tuner not in TUNERS:
        raise UserError(
            f"Expected a tuner among {', '.join(map(repr, TUNERS))} with pareto; Received: tuner={tuner!r}."
        )
    if budget.keep_macs is not None:
        raise UserError(
            "Expected max_macs, max_params or max_latency_ms with pareto, since networks of one cost have no front; "
            f"Received: keep_macs={budget.keep_macs:g}."
        )


def costs_of(space: Space, samples: Sequence[dict[str, Any]]) -> np.ndarray:
    """The cost of each sample, `(samples,)`: seconds by the latency table where there is one, else
    multiply-accumulates."""
    columns = {d.name: np.array([values[d.name] for values in samples]) for d in space.dimensions}
    costs = space.costs(columns)
    return (costs.seconds if space.latency else costs.macs).astype("float64")


def largest_cost(space: Space) -> float:
    """That of the widest network of the space, or the bound of the budget where it is lower."""
    widest = {d.name: d.high if d.blocks else d.default for d in space.dimensions}
    most = space.budget.max_latency_ms if space.latency else space.budget.max_macs
    bound = np.inf if most is None else most / 1000 if space.latency else most
    return float(min(costs_of(space, [widest])[0], bound))


def _survivors(oracle: InBudget, done: Sequence[Any], count: int) -> list[Any]:
    """So many trials, those of the best fronts first; on a front those that add most to its hypervolume."""
    sign = 1 if oracle.objective.direction == "max" else -1
    exact = [oracle.space.exact(trial.hyperparameters.values) for trial in done]
    costs, gains = costs_of(oracle.space, exact), sign * np.array([trial.score for trial in done], "float64")
    reference, rank = (largest_cost(oracle.space), worst_shown(gains, "max")), ranks(costs, gains)
    added = np.zeros(len(done))
    for number in np.unique(rank):
        own = np.flatnonzero(rank == number)
        added[own] = contributions(costs[own], gains[own], reference)
    return [done[index] for index in np.lexsort((-added, rank))[:count]]

"""Keras Tuner's oracles, which keep a budget, start from the paper's widths and survive a kill."""

import itertools
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner as kt
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from training.errors import UserError
from tuning.keras_tuner_patches import GaussianProcessOracle, PersistentOracle
from tuning.results import COMPLETED, FAILED, RUNNING, last_line
from tuning.space import Space

log = logging.getLogger(__name__)

STOPPED = "STOPPED"
REDRAWS = 1000  # random samples in a row that are over budget or known before the space counts as exhausted
GRID_CHUNK, GRID_LIMIT = 10_000, 10_000_000  # points checked together, and in a row without one in the budget
CANDIDATES, PARENTS = 1000, 4  # that a Gaussian process chooses from: random ones, and as many near the best trials
POPULATION, TOURNAMENT = 10, 3  # of evolution
GENERATIONS = 10  # into which a long search is divided: a small population would forget its best long before the end
# Of the scores, as a fraction of their variance, from which learning it starts: two runs of one network differ.
NOISE = 0.1
CURIOSITY = 1.5  # deviations above the mean at which a candidate is judged


class InBudget(PersistentOracle):
    """What all oracles here share; a mixin before the oracle of Keras Tuner that chooses.

    Args:
        space: whose samples to try.
        objective: what to optimize.
        trials: how many there are to be; None for as many as the oracle wants.
        max_failures: trials in a row that may fail.
        ended: called with the oracle and every trial that ended.
        **arguments: of the other oracle.
    """

    def __init__(
        self,
        space: Space,
        objective: kt.Objective,
        trials: int | None,
        max_failures: int,
        ended: Callable[["InBudget", Any], None] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(
            objective=objective,
            hyperparameters=space.hyperparameters(),
            allow_new_entries=False,
            tune_new_entries=False,
            seed=space.recipe.seed + 1,  # Keras Tuner takes 0 for a random one
            max_consecutive_failed_trials=sys.maxsize,  # it would raise with its lock held, and stop every worker
            **arguments,
        )
        self.space, self.max_trials, self.max_failures = space, trials, max_failures
        self.verbose, self._ended = 0, ended
        self.began, self.before = time.monotonic(), 0

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if self.failures() >= self.max_failures:
            return {"status": STOPPED}
        response = super().populate_space(trial_id)
        values = response.get("values")
        if not values or "tuner/trial_id" in values:  # nothing to try, or an earlier trial that continues
            return response
        begins = (self.space.first, self.space.proposed)  # the first two trials
        own = begins[len(self.trials)]() if len(self.trials) < len(begins) else None
        own = own or self.space.fit_to_budget(values)
        if own is None or (self.trials and self.is_duplicate(values | own)):
            own = self._random_values()
        return {"status": RUNNING, "values": values | own} if own else {"status": STOPPED}

    def _first_new(self, samples: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
        """The first sample that no trial has had, else a random one."""
        return next((values for values in samples if not self.is_duplicate(values)), None) or self._random_values()

    def _random_values(self) -> dict[str, Any] | None:
        for _ in range(REDRAWS):
            for values in self.space.sample(1, self.next_seed()):
                if not self.is_duplicate(values):
                    return values
        log.warning("%d random samples in a row were known or beyond the budget: the space is exhausted", REDRAWS)
        return None

    def identity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The network and recipe: samples that round to the same ones are one."""
        kept = {name: value for name, value in values.items() if name.startswith("tuner/")}
        return self.space.identity(self.space.exact(values)) | kept

    def end_trial(self, trial: Any) -> None:
        trial.hyperparameters.values |= self.space.exact(trial.hyperparameters.values)  # single precision on the way
        super().end_trial(trial)
        if self._ended:
            self._ended(self, self.trials[trial.trial_id])

    def failures(self) -> int:
        """Trials that failed since the last one that did not."""
        status = [self.trials[trial_id].status for trial_id in reversed(self.end_order)]
        return sum(1 for _ in itertools.takewhile(lambda ended: ended == FAILED, status))

    def check_failures(self, home: Path) -> None:
        """Raises UserError where failures ended the search."""
        if (failures := self.failures()) >= self.max_failures:
            last = self.trials[self.end_order[-1]]
            raise UserError(
                f"Expected fewer than {self.max_failures} failed trials in a row (--max-failures); Received: "
                f"{failures}, the last with {last_line(last.message or '')!r}; what ended is in {home}."
            )

    def reload(self) -> None:
        super().reload()
        self.before = len(self.end_order)


class Random(InBudget, kt.oracles.RandomSearchOracle):
    """Independent samples."""


class _Gaussian(GaussianProcessOracle):
    """Keras Tuner's Gaussian process, asked about samples in the budget, with noise that it learns from the scores.

    Keras Tuner's own search for the best point leaves the budget, takes 10 s in 12 dimensions and does not resume after
    a kill; its fixed noise takes a lucky score for a good place, and tries that again and again.
    """

    def make_regressor(self) -> GaussianProcessRegressor:
        kernel = kernels.Matern(nu=2.5) + kernels.WhiteKernel(NOISE, (1e-3, 10.0))
        return GaussianProcessRegressor(kernel, n_restarts_optimizer=5, normalize_y=True, random_state=self.seed)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        done = [trial for trial in self.trials.values() if trial.status == COMPLETED]
        if len(done) < self.num_initial_points:
            return self.random_response()
        points, scores = self.observations()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of noise near the end of its range
            found = self.gpr.fit(points, scores).kernel_
        noise = found.k2.noise_level
        surface = GaussianProcessRegressor(found.k1, alpha=noise, optimizer=None, normalize_y=True).fit(points, scores)
        candidates = self.candidates(done, self.seed + int(trial_id))
        for index in self.choose(surface, done, candidates):
            if not self.is_duplicate(candidates[index]):
                return {"status": RUNNING, "values": candidates[index]}
        return {"status": STOPPED}

    def choose(
        self, surface: GaussianProcessRegressor, done: Sequence[Any], candidates: Sequence[dict[str, Any]]
    ) -> np.ndarray:
        """Indices of the candidates, the most promising first.

        Args:
            surface: of the scores, lower being better.
            done: the completed trials.
            candidates: to choose from.
        """
        mean, deviation = surface.predict(self.vectors(candidates), return_std=True)
        return np.argsort(mean - self.beta * deviation, kind="stable")

    def candidates(self, done: Sequence[Any], seed: int) -> list[dict[str, Any]]:
        """Random samples, and neighbors of the best trials."""
        sign = -1 if self.objective.direction == "max" else 1
        best = sorted(done, key=lambda trial: sign * trial.score)[:PARENTS]
        found = self.space.sample(CANDIDATES, seed)
        for trial in best:
            found += self.space.neighbors(trial.hyperparameters.values, CANDIDATES // PARENTS, seed)
        return found


class Bayesian(InBudget, _Gaussian):
    """The upper confidence bound of a Gaussian process."""


class Hyperband(InBudget, kt.oracles.HyperbandOracle):
    """Many samples for few epochs, of which the best continue."""


class _Chosen(kt.Oracle):
    """An oracle that names the values of the next trial, or None."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        values = self._next_values(int(trial_id))
        return {"status": RUNNING, "values": values} if values else {"status": STOPPED}


class Grid(InBudget, _Chosen):
    """Every point of the grid that keeps the budget; the first dimension changes last. Keras Tuner's own cannot resume
    after a kill."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._position = 0

    def _next_values(self, number: int) -> dict[str, Any] | None:
        axes = [[d.default, *(v for v in d.grid() if v != d.default)] for d in self.space.dimensions]
        sizes = [len(axis) for axis in axes]
        end = min(math.prod(sizes), self._position + GRID_LIMIT)
        while self._position < end:
            chunk = range(self._position, min(end, self._position + GRID_CHUNK))
            columns, rest = {}, np.array(chunk, object if end > 2**62 else "int64")
            for d, axis, size in reversed(list(zip(self.space.dimensions, axes, sizes, strict=True))):
                columns[d.name] = np.asarray(axis)[(rest % size).astype(int)]
                rest = rest // size
            good = np.flatnonzero(self.space.which_keep(columns))
            for place in good:
                values = {d.name: columns[d.name][place].item() for d in self.space.dimensions}
                self._position = chunk[place] + 1
                if not self.is_duplicate(values):
                    return values
            self._position = chunk[-1] + 1
        return None

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._position = state["position"]


class Evolution(InBudget, _Chosen):
    """Aging evolution: one change in the best of a few of the latest trials (arXiv 1802.01548, section 3)."""

    def _next_values(self, number: int) -> dict[str, Any] | None:
        rng = np.random.default_rng((self.seed, number))
        population = max(POPULATION, (self.max_trials or 0) // GENERATIONS)
        living = [self.trials[i] for i in self.end_order if self.trials[i].status == COMPLETED][-population:]
        if number < population or not living:
            return self._random_values()
        few = [living[i] for i in rng.choice(len(living), min(TOURNAMENT, len(living)), replace=False)]
        sign = 1 if self.objective.direction == "max" else -1
        parent = max(few, key=lambda trial: sign * trial.score)
        near = self.space.neighbors(parent.hyperparameters.values, REDRAWS, int(rng.integers(2**31)))
        return self._first_new(near)


TUNERS: dict[str, type[InBudget]] = {
    "random": Random,
    "hyperband": Hyperband,
    "bayesian": Bayesian,
    "grid": Grid,
    "evolution": Evolution,
}


def make_oracle(
    name: str,
    space: Space,
    objective: kt.Objective,
    trials: int | None,
    max_failures: int,
    ended: Callable[[InBudget, Any], None] | None = None,
    tuners: Mapping[str, type[InBudget]] = TUNERS,
) -> InBudget:
    """The oracle of that name, of `tuners`; see `InBudget`."""
    more: dict[str, Any] = {}
    if name == "bayesian":
        more = {"beta": CURIOSITY, "num_initial_points": max(4, (trials or 0) // 3)}
    if name == "hyperband":
        more = {"max_epochs": space.recipe.epochs, "hyperband_iterations": None if trials else 1}
    return tuners[name](space, objective, trials, max_failures, ended, **more)

"""Keras Tuner's oracles, made to keep a budget, to start from the paper's widths and to outlive a kill."""

import itertools
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner as kt
import numpy as np
from keras_tuner.engine import trial as kt_trials
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from inception_v1.atomic_files import written_whole
from tuning.reading import last_line
from tuning.results import COMPLETED, FAILED, RUNNING
from tuning.space import Space

log = logging.getLogger(__name__)

STOPPED = "STOPPED"
REDRAWS = 1000  # random samples in a row that are over budget or known before the space counts as exhausted
GRID_CHUNK, GRID_LIMIT = 10_000, 10_000_000  # points looked at together, and in a row without one in the budget
CANDIDATES, PARENTS = 1000, 4  # that a Gaussian process chooses from: random ones, and as many near the best trials
POPULATION, TOURNAMENT = 10, 3  # of evolution
NOISE = 0.1  # of the scores, as a share of their variance, where learning it starts: two runs of one network differ
CURIOSITY = 1.5  # deviations above the mean at which a candidate is judged


class InBudget(kt.Oracle):
    """What all oracles here share; goes before the oracle of Keras Tuner that chooses.

    Args:
        space: whose samples to try.
        objective: what to optimise.
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
    ):
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

    def populate_space(self, trial_id):
        if self.failures() >= self.max_failures:
            return {"status": STOPPED}
        response = super().populate_space(trial_id)
        values = response.get("values")
        if not values or "tuner/trial_id" in values:  # nothing to try, or a trial of before that goes on
            return response
        own = (None if self.trials else self.space.first()) or self.space.fitted(values)
        if own is None or (self.trials and self._duplicate(values | own)):
            own = self._random_values()
        return {"status": RUNNING, "values": values | own} if own else {"status": STOPPED}

    def _random_values(self):
        for _ in range(REDRAWS):
            self._seed_state += 1
            for values in self.space.sample(1, self._seed_state):
                if not self._duplicate(values):
                    return values
        log.warning("%d random samples in a row were known or beyond the budget: the space is exhausted", REDRAWS)
        return None

    def _compute_values_hash(self, values):
        """Of what the values come to: samples that round to the same network are one."""
        kept = {name: value for name, value in values.items() if name.startswith("tuner/")}
        return super()._compute_values_hash(self.space.identity(self.space.tidied(values)) | kept)

    def end_trial(self, trial):
        trial.hyperparameters.values |= self.space.tidied(trial.hyperparameters.values)  # single precision on the way
        super().end_trial(trial)
        if self._ended:
            self._ended(self, self.trials[trial.trial_id])

    def failures(self) -> int:
        """Trials that failed since the last one that did not."""
        status = [self.trials[trial_id].status for trial_id in reversed(self.end_order)]
        return sum(1 for _ in itertools.takewhile(lambda ended: ended == FAILED, status))

    def check_failures(self, home: Path) -> None:
        """Raises ValueError where failures ended the search."""
        if (failures := self.failures()) >= self.max_failures:
            last = self.trials[self.end_order[-1]]
            raise ValueError(
                f"Expected fewer than {self.max_failures} failed trials in a row (--max-failures); Received: "
                f"{failures}, the last with {last_line(last.message or '')!r}; what ended is in {home}."
            )

    def save(self):
        with written_whole(Path(self._get_oracle_fname())) as part:
            super(kt.Oracle, self).save(str(part))

    def _save_trial(self, trial):
        with written_whole(Path(self._get_trial_dir(trial.trial_id), "trial.json")) as part:
            trial.save(str(part))

    def reload(self):
        """Goes on where the files say: the oracle's own and one for each trial, which a kill can leave a step apart."""
        super().reload()
        for trial_id in set(self.trials) - set(self.start_order):  # begun, but not noted: it will be made again
            del self.trials[trial_id]
        ended = [i for i in self.start_order if self.trials[i].status in (COMPLETED, FAILED)]
        self.end_order += [i for i in ended if i not in self.end_order]
        self._retry_queue = [i for i in reversed(self.start_order) if i not in ended]  # taken from its end
        self.before = len(self.end_order)


class Random(InBudget, kt.oracles.RandomSearchOracle):
    """Independent samples."""


class _Gaussian(kt.oracles.BayesianOptimizationOracle):
    """Keras Tuner's Gaussian process, asked about samples in the budget, with noise that it learns from the scores.

    Keras Tuner's own search for the best point leaves the budget, takes 10 s in 12 dimensions and does not go on after
    a kill; its fixed noise takes a lucky score for a good place, and tries that over and over.
    """

    def _make_gpr(self):
        kernel = kernels.Matern(nu=2.5) + kernels.WhiteKernel(NOISE, (1e-3, 10.0))
        return GaussianProcessRegressor(kernel, n_restarts_optimizer=5, normalize_y=True, random_state=self.seed)

    def populate_space(self, trial_id):
        done = [trial for trial in self.trials.values() if trial.status == COMPLETED]
        if len(done) < self.num_initial_points:
            return self._random_populate_space()
        points, scores = self._vectorize_trials()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of noise near the end of its range
            found = self.gpr.fit(points, scores).kernel_
        noise = found.k2.noise_level
        surface = GaussianProcessRegressor(found.k1, alpha=noise, optimizer=None, normalize_y=True).fit(points, scores)
        candidates = self._candidates(done, self.seed + int(trial_id))
        vectors = [[hp.value_to_prob(values[hp.name]) for hp in self._nonfixed_space()] for values in candidates]
        mean, deviation = surface.predict(np.array(vectors), return_std=True)
        for index in np.argsort(mean - self.beta * deviation, kind="stable"):
            if not self._duplicate(candidates[index]):
                return {"status": RUNNING, "values": candidates[index]}
        return {"status": STOPPED}

    def _candidates(self, done, seed):
        """Random samples, and neighbours of the best trials."""
        sign = -1 if self.objective.direction == "max" else 1
        best = sorted(done, key=lambda trial: sign * trial.score)[:PARENTS]
        found = self.space.sample(CANDIDATES, seed)
        for trial in best:
            found += self.space.neighbours(trial.hyperparameters.values, CANDIDATES // PARENTS, seed)
        return found


class Bayesian(InBudget, _Gaussian):
    """The upper confidence bound of a Gaussian process."""


class Hyperband(InBudget, kt.oracles.HyperbandOracle):
    """Many samples for few epochs, of which the best go on."""


class _Chosen(kt.Oracle):
    """An oracle that names the values of the next trial, or None."""

    def populate_space(self, trial_id):
        values = self._next_values(int(trial_id))
        return {"status": RUNNING, "values": values} if values else {"status": STOPPED}


class Grid(InBudget, _Chosen):
    """Every point of the grid that keeps the budget; the first dimension changes last. Keras Tuner's own cannot go on
    after a kill."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self._position = 0

    def _next_values(self, number):
        axes = [[d.default, *(v for v in d.grid() if v != d.default)] for d in self.space.dimensions]
        sizes = [len(axis) for axis in axes]
        end = min(math.prod(sizes), self._position + GRID_LIMIT)
        while self._position < end:
            chunk = range(self._position, min(end, self._position + GRID_CHUNK))
            columns, rest = {}, np.array(chunk, object if end > 2**62 else "int64")
            for d, axis, size in reversed(list(zip(self.space.dimensions, axes, sizes, strict=True))):
                columns[d.name] = np.asarray(axis)[(rest % size).astype(int)]
                rest = rest // size
            good = np.flatnonzero(self.space.all_keep(columns))
            for place in good:
                values = {d.name: columns[d.name][place].item() for d in self.space.dimensions}
                self._position = chunk[place] + 1
                if not self._duplicate(values):
                    return values
            self._position = chunk[-1] + 1
        return None

    def get_state(self):
        return super().get_state() | {"position": self._position}

    def set_state(self, state):
        super().set_state(state)
        self._position = state["position"]


class Evolution(InBudget, _Chosen):
    """Aging evolution: one change in the best of a few of the latest trials (arXiv 1802.01548, section 3)."""

    def _next_values(self, number):
        rng = np.random.default_rng((self.seed, number))
        living = [self.trials[i] for i in self.end_order if self.trials[i].status == COMPLETED][-POPULATION:]
        if number < POPULATION or not living:
            return self._random_values()
        few = [living[i] for i in rng.choice(len(living), min(TOURNAMENT, len(living)), replace=False)]
        sign = 1 if self.objective.direction == "max" else -1
        parent = max(few, key=lambda trial: sign * trial.score)
        near = self.space.neighbours(parent.hyperparameters.values, REDRAWS, int(rng.integers(2**31)))
        return next((values for values in near if not self._duplicate(values)), None) or self._random_values()


TUNERS: dict[str, type[InBudget]] = {
    "random": Random,
    "hyperband": Hyperband,
    "bayesian": Bayesian,
    "grid": Grid,
    "evolution": Evolution,
}


def make(name: str, space: Space, objective: kt.Objective, trials: int | None, max_failures: int, ended=None):
    """The oracle of that name, of `TUNERS`; see `InBudget`."""
    more: dict[str, Any] = {}
    if name == "bayesian":
        more = {"beta": CURIOSITY, "num_initial_points": max(4, (trials or 0) // 3)}
    if name == "hyperband":
        more = {"max_epochs": space.recipe.epochs, "hyperband_iterations": None if trials else 1}
    return TUNERS[name](space, objective, trials, max_failures, ended, **more)


def read_trials(folder: Path) -> list[Any]:
    """Keras Tuner's trials as their files say, in order."""
    trials = [kt_trials.Trial.load(str(path)) for path in folder.glob("trial_*/trial.json")]
    return sorted(trials, key=lambda trial: int(trial.trial_id))

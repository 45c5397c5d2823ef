"""What a search found out: its settings, and one record a trial in order of merit."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from inception_v1.spec import Spec
from training.recipe import Recipe
from tuning.pareto import front_of, hypervolume

COMPLETED, FAILED, RUNNING = "COMPLETED", "FAILED", "RUNNING"  # Keras Tuner's names
SEARCH = "search.json"  # by which the folder of a search is known
PER_MAC = "accuracy_per_mac"  # an objective that is no column of a history


@dataclasses.dataclass(frozen=True)
class Trial:
    """One sample of a space and how it did.

    Attributes:
        number: from 0, which is the network that the search starts from (with the paper's widths).
        status: COMPLETED, FAILED or RUNNING.
        values: by name of the dimension.
        spec: the network.
        recipe: how it was trained.
        params: trainable and not, of the network without its auxiliary heads.
        macs: multiply-accumulates of the same for one image.
        score: the objective at its best epoch; None unless completed.
        metrics: numbers of that epoch, by the column names of `history.csv`; empty where no epoch ended.
        epochs: that ended.
        seconds: that it took.
        message: why it failed; else empty.
        latency: seconds for a batch, by the latency table of the search; None without one.
    """

    number: int
    status: str
    values: dict[str, float | int | str]
    spec: Spec
    recipe: Recipe
    params: int
    macs: int
    score: float | None
    metrics: dict[str, float]
    epochs: int
    seconds: float
    message: str
    latency: float | None = None

    @property
    def cost(self) -> float:
        """Milliseconds for a batch where the search has a latency table, else multiply-accumulates for one image."""
        return self.macs if self.latency is None else 1000 * self.latency


def score_of(trial: Trial) -> float:
    """The score of a trial that has one, as all of `Results.ranked` do."""
    assert trial.score is not None
    return trial.score


def scores_of(trials: Sequence[Trial]) -> np.ndarray:
    """The scores of trials that all have one: float64 `(trials,)`."""
    return np.array([score_of(trial) for trial in trials], "float64")


@dataclasses.dataclass(frozen=True)
class Results:
    """All trials of a search.

    Attributes:
        settings: what the search was asked for, by the names of the command line's flags.
        objective: name of the number to optimize.
        direction: "max" or "min".
        trials: in order of their number.
        alone: of trials on shared weights, the scores of those that were trained alone too, by number.
    """

    settings: dict[str, object]
    objective: str
    direction: str
    trials: tuple[Trial, ...]
    alone: Mapping[int, float] = dataclasses.field(default_factory=dict)

    @property
    def completed(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.status == COMPLETED)

    @property
    def ranked(self) -> list[Trial]:
        """The completed trials whose score is a finite number: best first, of equals the one with fewer
        multiply-accumulates."""
        sign = -1 if self.direction == "max" else 1
        scored = [trial for trial in self.completed if trial.score is not None and math.isfinite(trial.score)]
        return sorted(scored, key=lambda trial: (sign * score_of(trial), trial.macs, trial.number))

    @property
    def best(self) -> Trial | None:
        """The first of `ranked`, if any; of trials that were trained alone the first of these."""
        return next(iter(self.ranked_alone or self.ranked), None)

    @property
    def ranked_alone(self) -> list[Trial]:
        """The trials that were trained alone, by what they scored then: best first."""
        sign = -1 if self.direction == "max" else 1
        known = [trial for trial in self.ranked if math.isfinite(self.alone.get(trial.number, math.nan))]
        return sorted(known, key=lambda trial: (sign * self.alone[trial.number], trial.macs, trial.number))

    @property
    def dimensions(self) -> list[str]:
        """Names of the dimensions, in the order in which the trials first have them."""
        return list(dict.fromkeys(name for trial in self.trials for name in trial.values))

    @property
    def baseline(self) -> Trial | None:
        """Trial 0, which has the paper's widths; None before it has begun."""
        return next((trial for trial in self.trials if trial.number == 0), None)

    @property
    def front(self) -> list[Trial]:
        """The Pareto front: the trials that none beats at their cost (see `Trial.cost`) or less, cheapest first."""
        trials, sign = self.ranked, 1 if self.direction == "max" else -1
        costs = np.array([trial.cost for trial in trials], "float64")
        return [trials[place] for place in front_of(costs, sign * scores_of(trials))]

    @property
    def pareto(self) -> bool:
        """Whether the search aims at the front of the objective and the cost."""
        return bool(self.settings.get("pareto"))

    @property
    def hypervolumes(self) -> dict[int, float]:
        """The hypervolume of the front after each completed trial, by its number: the area between the front and a
        reference, of costs as fractions of the largest one. The reference is the largest cost of all trials and the
        worst score, trials that are far worse apart (see `worst_shown`)."""
        trials = sorted(self.ranked, key=lambda trial: trial.number)
        if not trials:
            return {}
        costs, scores = np.array([trial.cost for trial in trials], "float64"), scores_of(trials)
        gains = scores if self.direction == "max" else -scores
        reference = (1.0, float(worst_shown(gains, "max")))
        return {
            trial.number: hypervolume(costs[:end] / costs.max(), gains[:end], reference)
            for end, trial in enumerate(trials, start=1)
        }

    def relative_macs(self, trial: Trial) -> float | None:
        """Multiply-accumulates as a multiple of trial 0's; None where there is no such number."""
        first = self.baseline
        return trial.macs / first.macs if first and first.macs else None


class Standing(NamedTuple):
    """The state of a search after a trial.

    Attributes:
        trial: Keras Tuner's record of the one that ended.
        objective: name of the score.
        ended: trials that ended.
        trials: of the search; None where the oracle decides.
        best: Keras Tuner's record of the best so far; None while there is none.
        seconds_left: by the mean of the trials since this process began; None where the number of trials is open.
        cost: parameters and multiply-accumulates of the trial's network, as fractions of those of the network that the
            search starts from.
        latency: seconds for a batch, by the latency table of the search; None without one.
    """

    trial: Any
    objective: str
    ended: int
    trials: int | None
    best: Any
    seconds_left: float | None
    cost: tuple[float, float]
    latency: float | None = None


def objective(history: Mapping[str, Any], name: str, macs: float) -> Any:
    """The objective in every epoch.

    Args:
        history: column to values, as `run_folder.read_history` returns them.
        name: a column, or `PER_MAC`.
        macs: multiply-accumulates of the network as a fraction of those of the network that the search starts from.
    """
    if name != PER_MAC:
        return history[name]
    average = "val_average_main_accuracy"
    return history[average if average in history else "val_main_accuracy"] / macs


def worst_shown(scores: Sequence[float] | np.ndarray, direction: str) -> float:
    """The worst score that is not far worse than the rest: within 1.5 interquartile ranges of the worse quartile.

    Else a trial that diverged would squeeze all others into one line. Of fewer than 8 scores, and where more than half
    are equal, it is the worst.
    """
    gains = np.array(scores) if direction == "max" else -np.array(scores)
    low, high = np.percentile(gains, (25, 75))
    if len(gains) < 8 or low == high:
        low, high = gains.min(), gains.min()
    worst = gains[gains >= low - 1.5 * (high - low)].min()
    return float(worst if direction == "max" else -worst)


def last_line(message: str) -> str:
    """The last line of a message that is not blank; "" where all are."""
    return next((line.strip() for line in reversed(encodable(message).splitlines()) if line.strip()), "")


def encodable(message: str) -> str:
    """The message with "?" for what UTF-8 cannot hold, such as a file name in another encoding."""
    return message.encode("utf-8", "replace").decode("utf-8")

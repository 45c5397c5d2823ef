"""What a search found out: its settings and one record a trial."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from inception_v1 import Spec
from training.recipe import Recipe

COMPLETED, FAILED, RUNNING = "COMPLETED", "FAILED", "RUNNING"  # Keras Tuner's words
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


@dataclasses.dataclass(frozen=True)
class Results:
    """All trials of a search.

    Attributes:
        settings: what the search was asked for, by the names of the command line's flags.
        objective: name of the number to optimise.
        direction: "max" or "min".
        trials: in order of their number.
    """

    settings: dict[str, object]
    objective: str
    direction: str
    trials: tuple[Trial, ...]

    @property
    def completed(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.status == COMPLETED)

    @property
    def ranked(self) -> list[Trial]:
        """The completed trials whose score is a finite number: best first, of equals the one with fewer
        multiply-accumulates."""
        sign = -1 if self.direction == "max" else 1
        scored = [trial for trial in self.completed if trial.score is not None and math.isfinite(trial.score)]
        return sorted(scored, key=lambda trial: (sign * trial.score, trial.macs, trial.number))

    @property
    def best(self) -> Trial | None:
        """The first of `ranked`, if any."""
        return next(iter(self.ranked), None)


class Standing(NamedTuple):
    """Where a search stands after a trial.

    Attributes:
        trial: Keras Tuner's record of the one that ended.
        objective: name of the score.
        ended: trials that ended.
        trials: of the search; None where the oracle decides.
        best: Keras Tuner's record of the best so far; None while there is none.
        seconds_left: by the mean of the trials since this process began; None where the number of trials is open.
        cost: parameters and multiply-accumulates of the trial's network, as shares of those of the start.
    """

    trial: Any
    objective: str
    ended: int
    trials: int | None
    best: Any
    seconds_left: float | None
    cost: tuple[float, float]


def objective(history: Mapping[str, Any], name: str, macs: float) -> Any:
    """The objective in every epoch.

    Args:
        history: column to values, as `report.read_history` gives them.
        name: a column, or `PER_MAC`.
        macs: multiply-accumulates of the network as a share of those of the start.
    """
    if name != PER_MAC:
        return history[name]
    average = "val_average_main_accuracy"
    return history[average if average in history else "val_main_accuracy"] / macs

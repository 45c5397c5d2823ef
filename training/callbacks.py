"""What happens between the batches and epochs of a run: validation, the best model, history, warnings."""

import csv
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from inception_v1.atomic_files import atomic_file, write_text
from training.errors import DivergenceError
from training.evaluation.predictor import Predictor, sum_scores
from training.optimizer import SGD

log = logging.getLogger(__name__)


class Validate(keras.callbacks.Callback):
    """Evaluates the weights after every epoch, logged as "val_...", then their moving average, as "val_average_...".

    Every image counts once, whatever the batches and however many processes divide the work; Keras' own validation
    weighs a partial batch like a whole one in the losses by head.

    Args:
        validation: batches of this process' part of the validation split.
        weights: of the heads' losses in the sum.
        average: whether the optimizer keeps an average.
        sum_over_processes: adds up an array over the processes.
        between_batches: is called before each batch.
    """

    def __init__(
        self,
        validation: tf.data.Dataset,
        weights: Mapping[str, float | keras.Variable],
        average: bool,
        sum_over_processes: Callable[[np.ndarray], np.ndarray],
        between_batches: Callable[[], None],
    ) -> None:
        super().__init__()
        self._validation, self._weights, self._average = validation, weights, average
        self._sum_over_processes, self._between_batches = sum_over_processes, between_batches

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._predictor = Predictor(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        logs |= self._scores("val_")
        if self._average:
            raw = self.model.get_weights()
            assign_average(self.model, self.model.optimizer)
            logs |= self._scores("val_average_")
            self.model.set_weights(raw)

    def _scores(self, prefix: str) -> dict[str, float]:
        self._predictor.refresh()
        total = self._sum_over_processes(sum_scores(self._predictor(self._batches()), len(self.model.spec.heads)))
        return mean_scores(total, self._weights, prefix)

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        for batch in self._validation:
            self._between_batches()
            yield batch


def mean_scores(total: np.ndarray, weights: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The numbers of an evaluation by the columns of a history.

    Args:
        total: what `sum_scores` returns.
        weights: of the heads' losses in the sum, in the order of the heads.
        prefix: of the names.
    """
    scores = {f"{prefix}loss": 0.0}
    for (head, weight), (top1, top5, loss) in zip(weights.items(), total[:, :3] / total[:, 3:], strict=True):
        scores |= {f"{prefix}{head}_loss": loss, f"{prefix}{head}_accuracy": top1}
        scores[f"{prefix}{head}_top5_accuracy"] = top5
        scores[f"{prefix}loss"] += float(weight) * loss
    return scores


def assign_average(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Gives the variables of `model` the averages that an optimizer keeps for those of the same paths."""
    averages = unwrap(optimizer).averages()
    for variable in model.trainable_variables:
        variable.assign(averages[variable.path])


def unwrap(optimizer: keras.optimizers.Optimizer) -> SGD:
    """The optimizer inside the one that scales the loss of a float16 network."""
    return getattr(optimizer, "inner_optimizer", optimizer)


class KeepBest(keras.callbacks.Callback):
    """Saves the model of the epoch with the best score (of equals, the latest), without its optimizer.

    The file is replaced whole, so that it always holds one complete model.

    Args:
        path: a `.keras` file.
        bare: an uncompiled network like the one in training, to take over its weights.
        score: which of the epoch's numbers, higher being better.
        average: whether to save the moving average of the weights, not the weights.

    Attributes:
        best: the score so far.
        best_epoch: which epoch the file holds, from 1; None before the first.
    """

    def __init__(self, path: Path, bare: GoogLeNet, score: str = "val_main_accuracy", average: bool = False) -> None:
        super().__init__()
        self._path, self._bare, self._score, self._average = path, bare, score, average
        self.best = -math.inf
        self.best_epoch: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        if logs[self._score] >= self.best:
            self._bare.set_weights(self.model.get_weights())
            if self._average:
                assign_average(self._bare, self.model.optimizer)
            with atomic_file(self._path) as part:
                self._bare.save(part)
            self.best, self.best_epoch = float(logs[self._score]), epoch + 1


class History(keras.callbacks.Callback):
    """Writes the numbers of every epoch to a CSV file, whole each time.

    Args:
        path: of the file.

    Attributes:
        rows: column to number, for every epoch.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.rows: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        rate = float(self.model.optimizer.learning_rate)
        self.rows.append({"epoch": epoch, "learning_rate": rate, **{k: float(v) for k, v in sorted(logs.items())}})
        write_history(self._path, self.rows)


def write_history(path: Path, rows: list[dict[str, float]]) -> None:
    """Writes a `history.csv`, whole, from the numbers of each epoch by their columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


class StopEarly(keras.callbacks.Callback):
    """Ends training once a number of the epochs has not become better for a while.

    It looks at the history alone, so that a resumed run ends where it would have ended.

    Args:
        score: the number, from a row of the history.
        direction: "max" or "min".
        patience: epochs to wait for a better one.
    """

    def __init__(self, score: Callable[[Mapping[str, float]], float], direction: str, patience: int) -> None:
        super().__init__()
        self._score, self._sign, self._patience = score, 1 if direction == "max" else -1, patience

    def watch(self, history: History) -> None:
        """Looks at this history, which is up to date at the end of an epoch before this callback is called."""
        self._history = history

    def due(self) -> bool:
        """Whether the best of the epochs so far lies that far back."""
        scores = [self._sign * self._score(row) for row in self._history.rows]
        return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= self._patience

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.stop_training = self.model.stop_training or self.due()


class AuxWeight(keras.callbacks.Callback):
    """Lets the weight of the auxiliary losses fall linearly to zero over the run.

    Args:
        weight: the variable that the losses were compiled with.
        start: weight of the first epoch.
        epochs: of the run.
    """

    def __init__(self, weight: keras.Variable, start: float, epochs: int) -> None:
        super().__init__()
        self._weight, self._start, self._epochs = weight, start, epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._weight.assign(self._start * (1 - epoch / self._epochs))


class StopOnDivergence(keras.callbacks.Callback):
    """Ends training with a `DivergenceError` at the first step whose loss is not finite.

    Args:
        steps: in an epoch.
        kept: returns what is left of the run, as a clause.
    """

    def __init__(self, steps: int, kept: Callable[[], str]) -> None:
        super().__init__()
        self._steps, self._kept, self._epoch = steps, kept, 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        if math.isfinite(logs["loss"]):
            return
        step = self._epoch * self._steps + batch + 1
        raise DivergenceError(
            f"Expected a finite loss; Received: loss={logs['loss']} at step {step} (epoch {self._epoch + 1}), learning "
            f"rate {float(self.model.optimizer.learning_rate):.3g}. Lower the learning rate or lengthen the warm-up; "
            f"{self._kept()}."
        )


class WatchHeads(keras.callbacks.Callback):
    """Notices a head that does not learn while another does: a well-known failure of this network.

    A head counts as stuck where its training loss stays within 2 % of ln(classes), that of a guess, for two epochs.

    Args:
        heads: names of the outputs.
        classes: number of classes.

    Attributes:
        warnings: what was noticed, by head.
    """

    def __init__(self, heads: tuple[str, ...], classes: int) -> None:
        super().__init__()
        self._heads, self._guess = heads, math.log(classes)
        self._stuck = dict.fromkeys(heads, 0)
        self.warnings: dict[str, str] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if len(self._heads) == 1:
            return
        assert logs is not None
        losses = {head: float(logs[f"{head}_loss"]) for head in self._heads}
        best = min(losses, key=lambda head: losses[head])
        for head, loss in losses.items():
            stuck = abs(loss / self._guess - 1) < 0.02 and losses[best] < 0.9 * self._guess
            self._stuck[head] = self._stuck[head] + 1 if stuck else 0
            if self._stuck[head] == 2 and head not in self.warnings:
                self.warnings[head] = (
                    f"{head} does not learn: its loss is {loss:.3f} after epoch {epoch + 1}, that of a guess "
                    f"(ln(classes) = {self._guess:.3f}), while {best} is at {losses[best]:.3f}. Lower the learning "
                    "rate, lengthen the warm-up, or take a variant with batch normalization."
                )
                log.warning("%s", self.warnings[head])

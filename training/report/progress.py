"""Progress of a run or an evaluation while it lasts."""

import time
from collections.abc import Iterable
from typing import Any

import keras
import rich.progress
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def track(batches: tf.data.Dataset) -> Iterable[Any]:
    """The batches of an evaluation, with a progress bar on standard error where that is a terminal."""
    return track_count(batches, int(batches.cardinality()), "evaluating")


def track_count(batches: Iterable[Any], count: int, title: str = "predicting") -> Iterable[Any]:
    """So many batches, with a progress bar as of `track` where they are several."""
    console = Console(stderr=True)
    return rich.progress.track(batches, title, count, console=console, disable=count == 1 or not console.is_terminal)


def steps_bar(console: Console, transient: bool = False) -> Progress:
    """A progress bar with the number of steps and the time that is left; none on anything but a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


class ShowProgress(keras.callbacks.Callback):
    """A progress bar over the steps of the run, and one line per finished epoch.

    Args:
        console: where to write; on anything but a terminal the lines alone appear.
        epochs: of the run.
        steps: in an epoch.
    """

    def __init__(self, console: Console, epochs: int, steps: int) -> None:
        super().__init__()
        self._epochs, self._steps = epochs, steps
        self._progress, self._console = steps_bar(console, transient=True), console

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._progress.start()
        self._task = self._progress.add_task("tracing the first step", total=self._epochs * self._steps)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        self._progress.update(self._task, advance=1, description=f"loss {logs['loss']:.4f}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        shown = {"loss": "loss", "main_accuracy": "top-1", "val_loss": "val loss", "val_main_accuracy": "val top-1"}
        parts = [f"{title} {logs[key]:.4f}" for key, title in shown.items() if key in logs]
        seconds = time.monotonic() - self._began
        self._console.print(
            f"epoch {epoch + 1:3d}/{self._epochs}  {'  '.join(parts)}  {seconds:.1f} s", highlight=False, soft_wrap=True
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._progress.stop()

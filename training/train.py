"""One run: source, pipeline, network, fit, evaluation, report, each one call."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from inception_v1 import GoogLeNet, Spec
from inception_v1.model import Crossentropy
from training import evaluate, pipeline, report, sources
from training import recipe as recipes
from training import run as runs
from training.recipe import Recipe
from training.run import RunFolder


def train(
    recipe: Recipe,
    folder: str | os.PathLike,
    *,
    overwrite: bool = False,
    command: str = "",
    show: Callable[[int, int], keras.callbacks.Callback] | None = None,
) -> dict[str, Any]:
    """Trains a network by `recipe` and leaves everything about the run in `folder`.

    Args:
        recipe: what to compute. Its seed is set for Python, NumPy and Keras.
        folder: new, empty, or (with `overwrite`) an earlier run's, which is replaced once the arguments hold.
        overwrite: whether an earlier run there may go.
        command: what the user typed; kept beside the numbers.
        show: makes a callback that shows progress, from the number of epochs and of steps in each.

    Returns:
        What `metrics.json` holds: the numbers of the test split (see `evaluate.measured`) and how they came about.

    Raises:
        ValueError: a bad source, split or network, or a folder in use: nothing is written then. Or a picture that
            cannot be decoded (named).
        KeyboardInterrupt: after noting it in `metrics.json`; `best.keras` is that of the epochs that finished.
    """
    run = RunFolder(folder)
    run.check_free(overwrite)
    builder, splits = sources.load(recipe)
    classes = sources.class_names(builder)
    spec = recipes.network(recipe, pipeline.image_channels(builder), len(classes))

    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()
    training = pipeline.batches(builder, splits.train, recipe, training=True)
    validation = pipeline.batches(builder, splits.validation, recipe, training=False)
    steps = int(training.cardinality())
    model = compiled(recipe, spec, steps)

    run.create(recipe, spec, classes)
    best = KeepBest(run / runs.BEST)
    callbacks = [
        best,
        keras.callbacks.CSVLogger(run / runs.HISTORY),
        keras.callbacks.TensorBoard(run / runs.TENSORBOARD, write_graph=False),
        *([show(recipe.epochs, steps)] if show else []),
    ]
    with _recorded(run, best, builder, command=command, splits=dataclasses.asdict(splits)) as metrics:
        # The dataset shuffles itself.
        model.fit(
            training, epochs=recipe.epochs, validation_data=validation, shuffle=False, callbacks=callbacks, verbose=0
        )
        predictions = evaluate.predict(run.model(), pipeline.batches(builder, splits.test, recipe, training=False))
        metrics |= evaluate.measured(predictions, classes)
        pictures = pipeline.pictures(builder, splits.test, recipe).as_numpy_iterator()
        report.write(run / runs.REPORT, run / runs.HISTORY, predictions, pictures, classes)
    return metrics


def compiled(recipe: Recipe, spec: Spec, steps: int) -> GoogLeNet:
    """The network of `spec`, compiled as `recipe` says for `steps` an epoch."""
    model = GoogLeNet(**spec.to_dict())
    model.compile(recipes.optimizer(recipe, model, steps), loss=Crossentropy(label_smoothing=recipe.label_smoothing))
    return model


class KeepBest(keras.callbacks.Callback):
    """Saves the model of the epoch with the best validation top-1 (of equals, the latest), without its optimizer.

    The file is replaced whole, so that it always holds one complete model.

    Args:
        path: a `.keras` file.

    Attributes:
        epochs: how many epochs have finished.
        best_epoch: which one the file holds, from 1; None before the first.
    """

    def __init__(self, path: Path):
        super().__init__()
        self._path, self._best = path, -1.0
        self.epochs, self.best_epoch = 0, None

    def on_train_begin(self, logs=None):
        self._bare = GoogLeNet.from_config(self.model.get_config())

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_main_accuracy"] >= self._best:
            self._bare.set_weights(self.model.get_weights())
            with runs.written_whole(self._path) as part:
                self._bare.save(part)
            self._best, self.best_epoch = logs["val_main_accuracy"], epoch + 1
        self.epochs = epoch + 1


@contextlib.contextmanager
def _recorded(run: RunFolder, best: KeepBest, builder, **known: Any) -> Iterator[dict[str, Any]]:
    """Keeps `metrics.json` true: "running" from the start, and how it ended whatever happens."""
    began = time.monotonic()
    metrics: dict[str, Any] = {"status": "running", **known}
    runs.write_json(run / runs.METRICS, metrics)
    try:
        yield metrics
        metrics["status"] = "finished"
    except KeyboardInterrupt:
        metrics["status"] = "interrupted"
        kept = f"its best model is in {run / runs.BEST}" if best.epochs else "no epoch had finished"
        raise KeyboardInterrupt(f"after {best.epochs} epochs; {kept}") from None
    except Exception as error:
        metrics |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        if isinstance(error, tf.errors.InvalidArgumentError) and (broken := sources.undecodable(builder)):
            metrics["error"] = (
                f"Expected readable pictures; Received {len(broken)} unreadable: {', '.join(broken[:10])}."
            )
            raise ValueError(metrics["error"]) from error
        raise
    finally:
        metrics |= {
            "epochs": best.epochs,
            "best_epoch": best.best_epoch,
            "seconds": round(time.monotonic() - began, 1),
        }
        runs.write_json(run / runs.METRICS, metrics)

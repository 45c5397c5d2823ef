"""One run: source, pipeline, network, fit, evaluation, report, each one call."""

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

from inception_v1 import GoogLeNet, Spec
from inception_v1.model import Crossentropy
from training import callbacks, evaluate, pipeline, report, sources, transfer
from training import recipe as recipes
from training import run as runs
from training.data_service import check_answers
from training.recipe import Recipe
from training.run import RunFolder
from training.sources import Splits

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    folder: str | os.PathLike,
    *,
    overwrite: bool = False,
    data_service: str | None = None,
    command: str = "",
    show: Callable[[int, int], keras.callbacks.Callback] | None = None,
) -> dict[str, Any]:
    """Trains a network by `recipe` and leaves everything about the run in `folder`.

    A run that broke off goes on after its last whole epoch when it is started again with the same recipe; with
    `recipe.deterministic` it ends with the same weights and history as if it had never stopped.

    Args:
        recipe: what to compute. Its seed is set for Python, NumPy and Keras.
        folder: new, empty, of a run of this recipe that broke off, or (with `overwrite`) of any earlier run, which is
            replaced once the arguments hold.
        overwrite: whether an earlier run there may go.
        data_service: address of a `tf.data` service ("grpc://HOST:PORT") whose workers prepare the batches.
        command: what the user typed; kept beside the numbers.
        show: makes a callback that shows progress, from the number of epochs and of steps in each.

    Returns:
        What `metrics.json` holds: the numbers of the test split (see `evaluate.measured`) and how they came about.

    Raises:
        ValueError: a bad source, split or network, a folder in use, a data service that does not answer, or too many
            unreadable pictures: nothing is written then. Or a loss that is not finite: the last good weights stay.
        OSError: the folder cannot be written; what was whole there before stays whole.
        KeyboardInterrupt: after noting it in `metrics.json`; `best.keras` is that of the epochs that finished.
    """
    if recipe.deterministic and data_service:
        raise ValueError(
            "Expected no data service in deterministic mode, since its batches arrive in any order; "
            f"Received: data_service={data_service!r}."
        )
    if data_service:
        check_answers(data_service)
    if recipe.aux_schedule == "linear" and keras.backend.backend() == "jax":
        raise ValueError("Expected a constant auxiliary weight on Keras' JAX backend, which compiles it into the step.")
    run = RunFolder(folder)
    pretrained = transfer.read(recipe.weights) if recipe.weights else None
    if pretrained:
        own = pretrained.spec
        recipe = dataclasses.replace(
            recipe, variant=own.variant, stem=own.stem, width_multiplier=own.width_multiplier, pixels=own.pixels
        )
    resumes = run.check_usable(recipe, overwrite)
    task = prepared(recipe, pretrained)

    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()
    with run.locked():
        if not resumes:
            run.create(recipe, task.spec, task.classes)
        known = {"command": command, "splits": dataclasses.asdict(task.splits), "unreadable": task.skip}
        with _recorded(run, known) as metrics:
            with _precision(recipe.precision), _nan_shows():
                _fit(task, run, resumes, data_service, show, metrics)
            test, skip = task.splits.test, task.skip["test"]
            batches = pipeline.batches(task.builder, test, recipe, training=False, skip=skip)
            predictions = evaluate.predict(run.model(), batches)
            metrics |= evaluate.measured(predictions, task.classes)
            pictures = pipeline.pictures(task.builder, test, recipe, skip).as_numpy_iterator()
            report.write(run / runs.REPORT, run / runs.HISTORY, predictions, pictures, task.classes)
        (run / runs.STATE).unlink()  # a finished run does not go on
    return metrics


@dataclasses.dataclass(frozen=True)
class Task:
    """What a recipe comes to, checked and not begun.

    Attributes:
        recipe: as asked for.
        spec: the network.
        pretrained: the network that it starts from, or None.
        builder: the prepared source.
        splits: of it.
        skip: names of unreadable pictures, by field of `splits`.
        classes: names in label order.
    """

    recipe: Recipe
    spec: Spec
    pretrained: GoogLeNet | None
    builder: tfds.core.DatasetBuilder
    splits: Splits
    skip: dict[str, list[str]]
    classes: list[str]


def prepared(recipe: Recipe, pretrained: GoogLeNet | None = None) -> Task:
    """Loads the source of a recipe and checks all that can be checked before a network is built.

    Raises:
        ValueError: as `train`.
    """
    builder, splits = sources.load(recipe)
    classes = sources.class_names(builder)
    spec = recipes.network(recipe, pipeline.image_channels(builder), len(classes))
    spec = transfer.changed(spec, class_names=classes)
    if pretrained:
        own = pretrained.spec
        spec = transfer.changed(spec, widths=own.widths, reduction=own.reduction, lrn=own.lrn)
        transfer.check_fits(pretrained.spec, spec, recipe.freeze_until)
    return Task(recipe, spec, pretrained, builder, splits, readable(builder, splits, recipe), classes)


def readable(builder: tfds.core.DatasetBuilder, splits: Splits, recipe: Recipe) -> dict[str, list[str]]:
    """Names of the pictures to leave out, by field of `splits`.

    Raises:
        ValueError: their share of a split is above `recipe.unreadable`; they are listed.
    """
    skip = {}
    for field, split in dataclasses.asdict(splits).items():
        skip[field] = pipeline.unreadable(builder, split)
        count, of = len(skip[field]), sources.size(builder, split)
        if count > recipe.unreadable * of:
            raise ValueError(
                f"Expected at most {recipe.unreadable:.1%} unreadable pictures (--unreadable); Received: {count} of "
                f"{of} in {split}: {', '.join(skip[field][:20])}{', ...' if count > 20 else ''}."
            )
        if count:
            log.warning("%d of %d pictures of %s are unreadable and left out: %s", count, of, split, skip[field][:5])
    return skip


def compiled(recipe: Recipe, spec: Spec, steps: int, aux_weight: float | keras.Variable | None = None) -> GoogLeNet:
    """The network of `spec`, compiled as `recipe` says for `steps` an epoch."""
    model = GoogLeNet(**spec.to_dict())
    weight = recipe.aux_weight if aux_weight is None else aux_weight
    model.compile(
        recipes.optimizer(recipe, steps),
        loss=Crossentropy(label_smoothing=recipe.label_smoothing),
        loss_weights={head: 1.0 if head == "main" else weight for head in spec.heads},
    )
    return model


def _fit(task: Task, run: RunFolder, resumes: bool, data_service: str | None, show, metrics: dict[str, Any]) -> None:
    """Trains from the start or from the saved state, and keeps `metrics` up to date meanwhile."""
    recipe, spec = task.recipe, task.spec
    steps = pipeline.steps_per_epoch(task.builder, task.splits.train, recipe, task.skip["train"])
    validation = pipeline.batches(
        task.builder, task.splits.validation, recipe, training=False, skip=task.skip["validation"]
    )
    falls = recipe.aux_schedule == "linear" and spec.has_aux
    aux_weight = keras.Variable(recipe.aux_weight, trainable=False, dtype="float32") if falls else None
    model = compiled(recipe, spec, steps, aux_weight)
    model.optimizer.build(model.trainable_variables)
    if task.pretrained:
        transfer.copy_body(task.pretrained, model)
        transfer.freeze(model, recipe.freeze_until)

    averages = recipe.average is not None
    score = "val_average_main_accuracy" if averages else "val_main_accuracy"
    best = [callbacks.KeepBest(run / runs.BEST, score, averages)]
    if averages:
        best.append(callbacks.KeepBest(run / runs.RAW))
    history, heads = callbacks.History(run / runs.HISTORY), callbacks.WatchHeads(spec.heads, spec.classes)
    state = callbacks.SaveState(run / runs.STATE, best, history)
    first_epoch = state.restore(model) if resumes else 0
    for row in history.rows:  # what the heads did before the run broke off
        heads.on_epoch_end(row["epoch"], row)
    metrics |= {"epochs": first_epoch, "best_epoch": best[0].best_epoch, "warnings": heads.warnings}

    def count(epoch, logs):
        metrics.update(epochs=epoch + 1, best_epoch=best[0].best_epoch)

    training = pipeline.batches(
        task.builder,
        task.splits.train,
        recipe,
        training=True,
        skip=task.skip["train"],
        first_epoch=first_epoch,
        service=data_service,
    )
    model.fit(
        training,
        epochs=recipe.epochs,
        initial_epoch=first_epoch,
        steps_per_epoch=steps,
        validation_data=validation,
        shuffle=False,  # the dataset shuffles itself
        callbacks=[
            callbacks.StopOnDivergence(steps, lambda: _kept(run, best[0].best_epoch)),
            *([callbacks.AuxWeight(aux_weight, recipe.aux_weight, recipe.epochs)] if falls else []),
            *([transfer.Unfreeze(recipe.freeze_until, recipe.unfreeze_epochs)] if recipe.unfreeze_epochs else []),
            *([callbacks.EvaluateAverage(validation)] if averages else []),
            heads,
            *best,
            history,
            keras.callbacks.TensorBoard(run / runs.TENSORBOARD, write_graph=False),
            state,
            keras.callbacks.LambdaCallback(on_epoch_end=count),
            *([show(recipe.epochs, steps)] if show else []),
        ],
        verbose=0,
    )


def _kept(run: RunFolder, best_epoch: int | None) -> str:
    if best_epoch is None:
        return "no epoch had finished"
    return f"its best model, of epoch {best_epoch}, is in {run / runs.BEST}"


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Builds layers with the recipe's precision, and none but those."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _nan_shows() -> Iterator[None]:
    """Keeps TensorFlow from joining batch normalisation and ReLU: oneDNN's joint operation turns NaN into zero, which
    would hide broken weights from the loss. Costs nothing measurable."""
    before = tf.config.optimizer.get_experimental_options().get("remapping", True)
    tf.config.optimizer.set_experimental_options({"remapping": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"remapping": before})


@contextlib.contextmanager
def _recorded(run: RunFolder, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Keeps `metrics.json` true: "running" from the start, and how it ended whatever happens."""
    before = run.metrics()["seconds"] if (run / runs.METRICS).is_file() else 0.0
    began = time.monotonic()
    metrics: dict[str, Any] = {"status": "running", **known, "epochs": 0, "best_epoch": None, "seconds": before}
    runs.write_json(run / runs.METRICS, metrics)
    try:
        yield metrics
        metrics["status"] = "finished"
    except KeyboardInterrupt:
        metrics["status"] = "interrupted"
        kept = _kept(run, metrics["best_epoch"])
        raise KeyboardInterrupt(f"after {metrics['epochs']} epochs; {kept}; the same command goes on") from None
    except Exception as error:
        metrics |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        raise
    finally:
        metrics["seconds"] = round(before + time.monotonic() - began, 1)
        with contextlib.suppress(OSError) if metrics["status"] == "failed" else contextlib.nullcontext():
            runs.write_json(run / runs.METRICS, metrics)

"""One run: source, pipeline, network, fit, evaluation, report, each one call."""

import contextlib
import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

from inception_v1 import GoogLeNet, Spec
from inception_v1.model import Crossentropy
from training import callbacks, evaluate, pipeline, report, sources, transfer
from training import recipe as recipes
from training import run as runs
from training import strategy as strategies
from training.data_service import check_answers
from training.launch import Preempted
from training.recipe import Recipe
from training.run import RunFolder
from training.sources import Splits
from training.strategy import Engine

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    folder: str | os.PathLike,
    *,
    strategy: str | None = None,
    cluster_timeout: float = strategies.TIMEOUT,
    overwrite: bool = False,
    data_service: str | None = None,
    command: str = "",
    show: Callable[[int, int], keras.callbacks.Callback] | None = None,
) -> dict[str, Any]:
    """Trains a network by `recipe` and leaves everything about the run in `folder`.

    A run that broke off goes on after its last whole epoch when it is started again with the same recipe; with
    `recipe.deterministic` it ends with the same weights and history as if it had never stopped.

    On several machines every one calls this with the same recipe, and `folder` is on a file system that all of them
    see: the first (the chief) writes there, and the others read the state to go on from.

    Args:
        recipe: what to compute. Its seed is set for Python, NumPy and Keras.
        folder: new, empty, of a run of this recipe that broke off, or (with `overwrite`) of any earlier run, which is
            replaced once the arguments hold.
        strategy: one of `strategy.NAMES`; None for what the environment asks for (see `strategy.make`). The recipe's
            batch size is that of each replica, and the learning rate follows the sum.
        cluster_timeout: seconds in which all machines must have come.
        overwrite: whether an earlier run there may go.
        data_service: address of a `tf.data` service ("grpc://HOST:PORT") whose workers prepare the batches.
        command: what the user typed; kept beside the numbers.
        show: makes a callback that shows progress, from the number of epochs and of steps in each.

    Returns:
        What `metrics.json` holds: the numbers of the test split (see `evaluate.measured`) and how they came about.
        Empty in every process but the chief.

    Raises:
        ValueError: a bad source, split or network, a folder in use, a data service that does not answer, a strategy
            that cannot be had, workers that do not agree, or too many unreadable pictures: nothing is written then. Or
            a loss that is not finite: the last good weights stay.
        ClusterError: another machine did not come, or is gone.
        OSError: the folder cannot be written; what was whole there before stays whole.
        KeyboardInterrupt: after noting it in `metrics.json`; `best.keras` is that of the epochs that finished. Its
            subclass `Preempted` after SIGTERM.
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
    engine = strategies.make(strategy, cluster_timeout)
    if engine.serves:
        engine.serve()
        return {}
    with engine.faults():
        run = RunFolder(engine.gather(str(folder))[0])
        engine.agree(dataclasses.asdict(recipe))
        engine.together(lambda: engine.check(recipe))
        recipe, pretrained = engine.together(lambda: completed(recipe))
        resumes = engine.together(lambda: run.check_usable(recipe, overwrite, engine.replicas))
        engine.agree({"state to go on from": resumes})
        task = engine.together(lambda: prepared(recipe, pretrained, engine.replicas))

        keras.utils.set_random_seed(recipe.seed)
        if recipe.deterministic:
            tf.config.experimental.enable_op_determinism()
        metrics: dict[str, Any] = {}
        with contextlib.ExitStack() as lock:
            engine.together(lambda: lock.enter_context(run.locked()) if engine.is_chief else None)
            if engine.is_chief:
                if not resumes:
                    run.create(task.recipe, task.spec, task.classes)
                known = {"command": command, "strategy": engine.name, "replicas": engine.replicas}
                known |= {"splits": dataclasses.asdict(task.splits), "unreadable": task.skip}
                with _recorded(run, known) as metrics:
                    _fit(task, engine, run, resumes, data_service, show, metrics)
                    _finish(task, run, metrics)
                (run / runs.STATE).unlink()  # a finished run does not go on
            else:
                _fit(task, engine, run, resumes, data_service, None, metrics)
        engine.gather("finished")  # a process that ends early looks like one that died
        return metrics if engine.is_chief else {}


@dataclasses.dataclass(frozen=True)
class Task:
    """What a recipe comes to, checked and not begun.

    Attributes:
        recipe: as asked for, with what a trained network decides.
        steps: batches in an epoch.
        spec: the network.
        pretrained: the network that it starts from, or None.
        builder: the prepared source.
        splits: of it.
        skip: names of unreadable pictures, by field of `splits`.
        classes: names in label order.
    """

    recipe: Recipe
    steps: int
    spec: Spec
    pretrained: GoogLeNet | None
    builder: tfds.core.DatasetBuilder
    splits: Splits
    skip: dict[str, list[str]]
    classes: list[str]


def completed(recipe: Recipe) -> tuple[Recipe, GoogLeNet | None]:
    """The recipe with what the trained network that it starts from decides, and that network."""
    if not recipe.weights:
        return recipe, None
    pretrained = transfer.read(recipe.weights)
    own = pretrained.spec
    recipe = dataclasses.replace(
        recipe, variant=own.variant, stem=own.stem, width_multiplier=own.width_multiplier, pixels=own.pixels
    )
    return recipe, pretrained


def prepared(recipe: Recipe, pretrained: GoogLeNet | None, replicas: int) -> Task:
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
    skip = readable(builder, splits, recipe)
    steps = pipeline.steps_per_epoch(builder, splits.train, shared(recipe, replicas), skip["train"], replicas)
    return Task(recipe, steps, spec, pretrained, builder, splits, skip, classes)


def shared(recipe: Recipe, replicas: int) -> Recipe:
    """The recipe of a step that several replicas share, each with the batch size of `recipe`."""
    return dataclasses.replace(recipe, batch_size=recipe.batch_size * replicas)


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


def compiled(recipe: Recipe, spec: Spec, steps: int, weights: Mapping[str, float | keras.Variable]) -> GoogLeNet:
    """The network of `spec`, compiled as `recipe` says for `steps` an epoch and these weights of the heads' losses."""
    model = GoogLeNet(**spec.to_dict())
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = recipe.sync_batch_norm
    model.compile(
        recipes.optimizer(recipe, steps),
        loss=Crossentropy(label_smoothing=recipe.label_smoothing),
        loss_weights=weights,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _fit(task: Task, engine: Engine, run: RunFolder, resumes, data_service, show, metrics: dict[str, Any]) -> None:
    """Trains from the start or from the saved state, and keeps `metrics` up to date meanwhile."""
    recipe, spec, builder, skip = task.recipe, task.spec, task.builder, task.skip
    with _precision(recipe.precision), _nan_shows(), _sigterm_ends():
        with engine.scope():
            falls = recipe.aux_schedule == "linear" and spec.has_aux
            aux_weight = keras.Variable(recipe.aux_weight, trainable=False, dtype="float32") if falls else None
            weight = recipe.aux_weight if aux_weight is None else aux_weight
            weights = {head: 1.0 if head == "main" else weight for head in spec.heads}
            model = compiled(shared(recipe, engine.replicas), spec, task.steps, weights)
        bare = GoogLeNet(**spec.to_dict())  # of this process alone
        if task.pretrained:
            transfer.copy_body(task.pretrained, model)
            transfer.freeze(model, recipe.freeze_until)

        averages = recipe.average is not None
        score = "val_average_main_accuracy" if averages else "val_main_accuracy"
        best = [callbacks.KeepBest(run / runs.BEST, bare, score, averages)]
        if averages:
            best.append(callbacks.KeepBest(run / runs.RAW, bare))
        history, heads = callbacks.History(run / runs.HISTORY), callbacks.WatchHeads(spec.heads, spec.classes)
        state = callbacks.SaveState(run / runs.STATE, best, history)
        first_epoch = state.restore(model) if resumes else 0
        for row in history.rows:  # what the heads did before the run broke off
            heads.on_epoch_end(row["epoch"], row)
        metrics |= {"epochs": first_epoch, "best_epoch": best[0].best_epoch, "warnings": heads.warnings}

        def count(epoch, logs):
            metrics.update(epochs=epoch + 1, best_epoch=best[0].best_epoch)

        share = engine.share()
        validation = pipeline.batches(
            builder,
            task.splits.validation,
            shared(recipe, engine.replicas // share.of),  # the replicas of this process
            training=False,
            skip=skip["validation"],
            share=share,
        )
        everywhere = [
            callbacks.StopOnDivergence(
                task.steps, lambda: _kept(run, best[0].best_epoch) if engine.is_chief else "worker 0 says what is left"
            ),
            *([callbacks.AuxWeight(aux_weight, recipe.aux_weight, recipe.epochs)] if falls else []),
            *([transfer.Unfreeze(recipe.freeze_until, recipe.unfreeze_epochs)] if recipe.unfreeze_epochs else []),
            callbacks.Validate(validation, weights, averages, engine.total),
        ]
        on_chief = [
            heads,
            *best,
            history,
            keras.callbacks.TensorBoard(run / runs.TENSORBOARD, write_graph=False),
            state,
            keras.callbacks.LambdaCallback(on_epoch_end=count),
            *([show(recipe.epochs, task.steps)] if show else []),
        ]
        if first_epoch == recipe.epochs:  # it broke off after the last one
            return
        metrics |= engine.fit(
            model,
            lambda share, service: pipeline.batches(
                builder,
                task.splits.train,
                shared(recipe, engine.replicas),
                training=True,
                skip=skip["train"],
                first_epoch=first_epoch,
                share=share,
                service=service,
            ),
            data_service,
            epochs=recipe.epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=task.steps,
            callbacks=everywhere + (on_chief if engine.is_chief else []),
        )


def _finish(task: Task, run: RunFolder, metrics: dict[str, Any]) -> None:
    """Measures the best model on the test split and writes the report."""
    test, skip = task.splits.test, task.skip["test"]
    batches = pipeline.batches(task.builder, test, task.recipe, training=False, skip=skip)
    predictions = evaluate.predict(run.model(), batches)
    metrics |= evaluate.measured(predictions, task.classes)
    pictures = pipeline.pictures(task.builder, test, task.recipe, skip).as_numpy_iterator()
    report.write(run / runs.REPORT, run / runs.HISTORY, predictions, pictures, task.classes)


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
def _sigterm_ends() -> Iterator[None]:
    """Ends training with `Preempted` at the next batch after SIGTERM, which TensorFlow's cluster code swallows."""

    def preempt(number, frame):
        raise Preempted

    try:
        before = signal.signal(signal.SIGTERM, preempt)
    except ValueError:  # not the main thread: somebody else has the signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    except KeyboardInterrupt as interrupt:
        metrics["status"] = "preempted" if isinstance(interrupt, Preempted) else "interrupted"
        kept = _kept(run, metrics["best_epoch"])
        raise type(interrupt)(f"after {metrics['epochs']} epochs; {kept}; the same command goes on") from None
    except Exception as error:
        metrics |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        raise
    finally:
        metrics["seconds"] = round(before + time.monotonic() - began, 1)
        with contextlib.suppress(OSError) if metrics["status"] == "failed" else contextlib.nullcontext():
            runs.write_json(run / runs.METRICS, metrics)

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
from training import callbacks, transfer
from training import recipe as recipes
from training import run_folder as runs
from training.data import pipeline, sources
from training.data.pipeline import Share
from training.data.service import check_answers
from training.data.sources import Splits
from training.distribution import strategy as strategies
from training.distribution.launch import Preempted
from training.distribution.strategy import Engine
from training.evaluation import evaluate
from training.recipe import Recipe
from training.report import figures as report
from training.run_folder import RunFolder

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    folder: str | os.PathLike,
    *,
    spec: Spec | None = None,
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
        spec: a network in place of the recipe's: its family, stem, widths, heads, dropout and pixels. Input and classes
            are those of the source.
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
    if spec and recipe.weights:
        raise ValueError(f"Expected a spec or weights to start from, not both; Received: weights={recipe.weights!r}.")
    engine = strategies.make(strategy, cluster_timeout)
    if engine.serves:
        engine.serve()
        return {}
    with engine.faults():
        run = RunFolder(engine.gather(str(folder))[0])
        engine.agree(dataclasses.asdict(recipe) | {"spec": spec and spec.to_dict()})
        engine.together(lambda: engine.check(recipe))
        recipe, pretrained = engine.together(lambda: completed(recipe, spec))
        given = transfer.changed(pretrained.spec, dropout=recipe.dropout) if pretrained else spec
        resumes = engine.together(lambda: run.check_usable(recipe, overwrite, engine.replicas, given))
        engine.agree({"state to go on from": resumes})
        task = engine.together(lambda: prepared(recipe, pretrained, engine.replicas, given))

        seed(recipe)
        metrics: dict[str, Any] = {}
        with contextlib.ExitStack() as lock:
            engine.together(lambda: lock.enter_context(run.locked()) if engine.is_chief else None)
            if engine.is_chief:
                if not resumes:
                    run.create(task.recipe, task.spec, task.classes)
                known = {"command": command, "strategy": engine.name, "replicas": engine.replicas}
                known |= {"splits": dataclasses.asdict(task.splits), "unreadable": task.skip}
                with recorded(run, known) as metrics:
                    fit(task, engine, run, resumes, metrics, data_service=data_service, show=show)
                    _finish(task, run, metrics)
                (run / runs.STATE).unlink()  # a finished run does not go on
            else:
                fit(task, engine, run, resumes, metrics, data_service=data_service)
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

    def training(self, recipe: Recipe, first_epoch: int, share: Share, service: str | None) -> tf.data.Dataset:
        """Batches to train on; see `pipeline.batches`."""
        return pipeline.batches(
            self.builder,
            self.splits.train,
            recipe,
            training=True,
            skip=self.skip["train"],
            first_epoch=first_epoch,
            share=share,
            service=service,
        )

    def validation(self, recipe: Recipe, share: Share) -> tf.data.Dataset:
        """Batches that choose the best epoch."""
        skip = self.skip["validation"]
        return pipeline.batches(self.builder, self.splits.validation, recipe, training=False, skip=skip, share=share)


def completed(recipe: Recipe, spec: Spec | None = None) -> tuple[Recipe, GoogLeNet | None]:
    """The recipe with what a given network, or the trained one that it starts from, decides; and the trained one."""
    pretrained = transfer.read(recipe.weights) if recipe.weights else None
    own = pretrained.spec if pretrained else spec
    if own is None:
        return recipe, None
    fields = {name: getattr(own, name) for name in ("variant", "stem", "width_multiplier", "pixels")}
    if spec:
        fields |= {"aux": spec.has_aux, "dropout": spec.dropout[0]}
    return dataclasses.replace(recipe, **fields), pretrained


def network(recipe: Recipe, builder: tfds.core.DatasetBuilder, given: Spec | None = None) -> Spec:
    """The network of a recipe for the images and classes of its source; with the widths of another one if given."""
    classes = sources.class_names(builder)
    spec = recipes.network(recipe, pipeline.image_channels(builder), len(classes))
    own = {name: getattr(given, name) for name in runs.STRUCTURE} if given else {}
    return transfer.changed(spec, class_names=classes, **own)


def prepared(recipe: Recipe, pretrained: GoogLeNet | None, replicas: int, given: Spec | None = None) -> Task:
    """Loads the source of a recipe and checks all that can be checked before a network is built.

    Args:
        recipe: completed.
        pretrained: the network that it starts from, or None.
        replicas: that share a step.
        given: a network whose widths replace those of the recipe.

    Raises:
        ValueError: as `train`.
    """
    builder, splits = sources.load(recipe)
    classes = sources.class_names(builder)
    spec = network(recipe, builder, given)
    if pretrained:
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


def seed(recipe: Recipe) -> None:
    """Sets the recipe's seed for Python, NumPy and Keras, and TensorFlow's determinism where it asks for that."""
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()


def fit(
    task: Task,
    engine: Engine,
    run: RunFolder,
    resumes: bool,
    metrics: dict[str, Any],
    *,
    until: int | None = None,
    stop: callbacks.StopEarly | None = None,
    data_service: str | None = None,
    show: Callable[[int, int], keras.callbacks.Callback] | None = None,
) -> None:
    """Trains from the start or from the saved state.

    Args:
        task: or what has its `recipe`, `spec`, `steps`, `pretrained`, `training` and `validation`.
        engine: whose devices train.
        run: where the state is saved after every epoch.
        resumes: whether to go on from there.
        metrics: kept up to date meanwhile.
        until: last epoch, of those that the recipe's schedule is made for; None for all.
        stop: ends training early.
        data_service, show: as `train`.
    """
    recipe, spec = task.recipe, task.spec
    epochs = recipe.epochs if until is None else until
    with precision(recipe.precision), _nan_shows(), _sigterm_ends():
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
        if stop:
            stop.watch(history)
        metrics |= {"epochs": first_epoch, "best_epoch": best[0].best_epoch, "warnings": heads.warnings}

        def count(epoch, logs):
            metrics.update(epochs=epoch + 1, best_epoch=best[0].best_epoch)

        share = engine.share()
        validation = task.validation(shared(recipe, engine.replicas // share.of), share)  # replicas of this process
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
            *([stop] if stop else []),
            keras.callbacks.LambdaCallback(on_epoch_end=count),
            *([show(epochs, task.steps)] if show else []),
        ]
        if first_epoch == epochs or (stop and stop.due()):  # it broke off after the last one
            return
        metrics |= engine.fit(
            model,
            lambda share, service: task.training(shared(recipe, engine.replicas), first_epoch, share, service),
            data_service,
            epochs=epochs,
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
def precision(policy: str) -> Iterator[None]:
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
def recorded(run: RunFolder, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
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

"""One run, in the order in which data sees it: strategy, folder, source, network, fit, test, report."""

import contextlib
import dataclasses
import functools
import logging
import os
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from inception_v1 import GoogLeNet, Spec
from inception_v1.atomic_files import write_json
from inception_v1.extras import check_installed
from inception_v1.losses import Crossentropy
from training import callbacks, transfer
from training import run_folder as files
from training.data.pipeline import START, WHOLE, Position
from training.data.service import check_reachable
from training.distillation import Distillation
from training.distribution import choose
from training.distribution.cluster import TIMEOUT
from training.distribution.strategy import Strategy
from training.environment import describe_environment
from training.errors import Preempted, UserError
from training.evaluation.metrics import summarize
from training.evaluation.predictor import predict
from training.interruption import Interruption
from training.optimizer import make_optimizer
from training.precision import precision
from training.recipe import Recipe, with_global_batch
from training.report.run_page import write_run_page
from training.report.run_report import write_run_report
from training.run_folder import RunFolder
from training.run_images import load_splits
from training.run_state import DEFAULT_INTERVAL, SAVE_EVERY, Interval, SaveState, StateFiles, describe
from training.task import RecipeTask, Task, complete_recipe, prepare_task, recipe_spec

log = logging.getLogger(__name__)

STATISTICS_BATCH, STATISTICS_BATCHES = 64, 8  # images that statistics are measured on, where there are as many

ShowProgress = Callable[[int, int], keras.callbacks.Callback]  # makes it from the number of epochs and of steps in each


def train(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    spec: Spec | None = None,
    strategy: str | None = None,
    cluster_timeout: float = TIMEOUT,
    overwrite: bool = False,
    save_every: str | None = SAVE_EVERY,
    data_service: str | None = None,
    command: str = "",
    show: ShowProgress | None = None,
) -> dict[str, Any]:
    """Trains a network by `recipe` and leaves everything about the run in `folder`.

    An interrupted run resumes after the last step whose state was saved when it is started again with the same recipe;
    with `recipe.deterministic` it ends with the same weights and history as if it had never stopped.

    On several machines every one calls this with the same recipe, and `folder` is on a file system that all of them
    see: the first (the chief) writes there, and the others read the state to resume from.

    Args:
        recipe: what to compute. Its seed is set for Python, NumPy and Keras.
        folder: new, empty, of an interrupted run of this recipe, or (with `overwrite`) of any earlier run, which is
            replaced once the arguments hold.
        spec: a network in place of the recipe's: its family, stem, widths, heads, dropout and pixels. Input and classes
            are those of the source.
        strategy: one of `choose.NAMES`; None for what the environment asks for (see `choose.make_strategy`). The
            recipe's batch size is that of each replica, and the learning rate follows the sum.
        cluster_timeout: seconds within which all machines must have joined.
        overwrite: whether an earlier run there may be replaced.
        save_every: time ("10m", "30s") or number of steps ("500") between two states that are saved within an epoch;
            None for one after each epoch alone. Ctrl-C and SIGTERM save one in any case.
        data_service: address of a `tf.data` service ("grpc://HOST:PORT") whose workers prepare the batches.
        command: what the user typed; kept beside the numbers.
        show: makes a callback that shows progress, from the number of epochs and of steps in each.

    Returns:
        What `metrics.json` holds: the numbers of the test split (see `metrics.summarize`) and how they came about.
        Empty in every process but the chief.

    Raises:
        UserError: a bad source, split or network, a folder in use, a data service that does not answer, a strategy that
            is not available, workers that do not agree, or too many unreadable images: nothing is written then. Or a
            loss that is not finite: the last good weights stay.
        ClusterError: another machine did not join, or is lost.
        OSError: the folder cannot be written; what was whole there before stays whole.
        KeyboardInterrupt: after noting it in `metrics.json`; `best.keras` is that of the epochs that finished. Its
            subclass `Preempted` after SIGTERM.
    """
    interval = Interval.parse(save_every)
    _check_arguments(recipe, spec, data_service)
    distribution = choose.make_strategy(strategy, cluster_timeout)
    if distribution.serves:
        distribution.serve()
        return {}
    with distribution.detect_failures(), contextlib.ExitStack() as lock:
        run = RunFolder(distribution.gather(str(folder))[0])
        task, resumes = _prepare(recipe, spec, run, overwrite, distribution)
        set_seed(recipe)
        options = FitOptions(interval=interval, data_service=data_service, show=show)
        distribution.run_everywhere(_lock, lock, run, distribution.is_chief)
        if distribution.is_chief:
            if not resumes:
                task.create(run)
            record = run_task(task, distribution, run, resumes, options, {"command": command})
            write_run_page(run)
            remove_states(run)
        else:
            fit(task, distribution, run, resumes, options)
        distribution.gather("finished")  # a process that ends early looks like one that died
        return record.metrics if distribution.is_chief else {}


def run_task(
    task: RecipeTask,
    distribution: Strategy,
    run: RunFolder,
    resumes: bool,
    options: "FitOptions",
    known: dict[str, Any],
) -> "RunRecord":
    """Trains and tests in a folder that exists, on the chief.

    Args:
        task: what to train.
        distribution: whose devices train.
        run: the folder, with what `task.create` wrote.
        resumes: whether to resume from its state.
        options: see `FitOptions`.
        known: what `metrics.json` holds beside what every run's does.

    Returns:
        The record, whose `metrics` are those of the file.
    """
    known = known | {"strategy": distribution.name, "replicas": distribution.replicas}
    known |= {"environment": describe_environment()} | task.describe_images()
    with RunRecord(run, known) as record:
        record.update(fit(task, distribution, run, resumes, options, record))
        record.update(_test(task, run))
    return record


def remove_states(run: RunFolder) -> None:
    """Removes what an interrupted run would resume from: a finished one is not resumed."""
    for state in run.states():
        state.unlink()


def _check_arguments(recipe: Recipe, spec: Spec | None, data_service: str | None) -> None:
    check_installed("train")  # also what is imported at the end of a run alone
    if recipe.deterministic and data_service:
        raise UserError(
            "Expected no data service in deterministic mode, since its batches arrive in any order; "
            f"Received: data_service={data_service!r}."
        )
    if data_service:
        check_reachable(data_service)
    check_aux_schedule(recipe)
    if recipe.freeze_batch_norm and not recipe.weights:
        raise UserError("Expected weights with freeze_batch_norm; Received: freeze_batch_norm=True alone.")
    if spec and recipe.weights:
        raise UserError(f"Expected a spec or weights to start from, not both; Received: weights={recipe.weights!r}.")


def check_aux_schedule(recipe: Recipe) -> None:
    """Raises UserError for an auxiliary weight that changes, on JAX."""
    if recipe.aux_schedule == "linear" and keras.backend.backend() == "jax":
        raise UserError("Expected a constant auxiliary weight on Keras' JAX backend, which compiles it into the step.")


def _prepare(
    recipe: Recipe, spec: Spec | None, run: RunFolder, overwrite: bool, distribution: Strategy
) -> tuple[RecipeTask, bool]:
    """Agrees with the other processes on what to train; the task, and whether it resumes."""
    distribution.check_agreement(dataclasses.asdict(recipe) | {"spec": spec and spec.to_dict()})
    distribution.run_everywhere(distribution.check, recipe)
    recipe, pretrained = distribution.run_everywhere(complete_recipe, recipe, spec)
    rates = (recipe.dropout, recipe.aux_dropout)
    structure = transfer.with_arguments(pretrained.spec, dropout=rates) if pretrained else spec
    resumes = distribution.run_everywhere(_check_folder, run, recipe, structure, overwrite, distribution.replicas)
    distribution.check_agreement({"state to resume from": resumes})
    splits = distribution.run_everywhere(load_splits, run) if resumes else None
    task = distribution.run_everywhere(prepare_task, recipe, pretrained, distribution.replicas, structure, splits)
    return task, resumes


def _check_folder(run: RunFolder, recipe: Recipe, structure: Spec | None, overwrite: bool, replicas: int) -> bool:
    """Whether the folder holds a run to resume."""
    return run.check_usable(recipe, structure or recipe_spec(recipe, 1, 1), overwrite, replicas)


def _lock(stack: contextlib.ExitStack, run: RunFolder, is_chief: bool) -> None:
    """Keeps other runs out of the folder until the stack is closed."""
    if is_chief:
        stack.enter_context(run.locked())


def _test(task: RecipeTask, run: RunFolder) -> dict[str, Any]:
    """Measures the best model on the test split and writes the report."""
    predictions = predict(run.model(), task.test.evaluation())
    write_run_report(run, predictions, task.test.images().as_numpy_iterator(), task.classes)
    return summarize(predictions, task.classes)


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How a run is trained, beyond what decides its results.

    Attributes:
        until: last epoch, of those that the recipe's schedule is made for; None for all.
        stop: ends training early.
        interval: between two states that are saved within an epoch.
        data_service, show: as of `train`.
    """

    until: int | None = None
    stop: callbacks.StopEarly | None = None
    interval: Interval = DEFAULT_INTERVAL
    data_service: str | None = None
    show: ShowProgress | None = None


class RunRecord:
    """Keeps `metrics.json` true: "running" from the start, and how the run ended whatever happens. A context manager.

    Args:
        run: the folder.
        known: what is known before training.

    Attributes:
        metrics: what the file holds.
    """

    def __init__(self, run: RunFolder, known: dict[str, Any]) -> None:
        self._run, self._began = run, time.monotonic()
        self._before = run.metrics()["seconds"] if (run / files.METRICS).is_file() else 0.0
        self.metrics: dict[str, Any] = {"status": "running", **known, "epochs": 0, "best_epoch": None}
        self.metrics["seconds"] = self._before

    def update(self, numbers: Mapping[str, Any]) -> None:
        """Adds numbers, which are written at the end."""
        self.metrics.update(numbers)

    def __enter__(self) -> "RunRecord":
        write_json(self._run / files.METRICS, self.metrics)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        if error is None:
            self.metrics["status"] = "finished"
        elif isinstance(error, KeyboardInterrupt):
            self.metrics["status"] = "preempted" if isinstance(error, Preempted) else "interrupted"
        elif isinstance(error, Exception):
            self.metrics |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        self.metrics["seconds"] = round(self._before + time.monotonic() - self._began, 1)
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():  # which says more than a full disk
            write_json(self._run / files.METRICS, self.metrics)
        if isinstance(error, KeyboardInterrupt):
            kept = describe_kept(self._run, self.metrics["best_epoch"])
            when = str(error) or describe(Position(self.metrics["epochs"]))
            raise type(error)(f"{when}; {kept}; the same command resumes") from None


def set_seed(recipe: Recipe) -> None:
    """Sets the recipe's seed for Python, NumPy and Keras, and TensorFlow's determinism where it asks for that."""
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()


def head_loss_weights(recipe: Recipe, spec: Spec) -> dict[str, float]:
    """The weight of each head's loss in the sum: 1 for the main head, the recipe's for the auxiliary heads (arXiv
    1409.4842, section 5)."""
    return {head: 1.0 if head == "main" else recipe.aux_weight for head in spec.heads}


def compile_model(
    recipe: Recipe,
    spec: Spec,
    steps: int,
    loss_weights: Mapping[str, float | keras.Variable],
    teacher: Distillation | None = None,
) -> GoogLeNet:
    """The network of `spec`, compiled according to a recipe.

    Args:
        recipe: its batch size is that of a whole step.
        spec: the network.
        steps: in an epoch.
        loss_weights: of the heads, as of `head_loss_weights`.
        teacher: what it learns beside the labels, or None.
    """
    model = teacher.student(spec, loss_weights) if teacher else GoogLeNet(**spec.to_dict())
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = recipe.sync_batch_norm
    model.compile(
        make_optimizer(recipe, steps),
        loss=Crossentropy(label_smoothing=recipe.label_smoothing),
        loss_weights=loss_weights,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def fit(
    task: Task,
    distribution: Strategy,
    run: RunFolder,
    resumes: bool,
    options: FitOptions,
    record: RunRecord | None = None,
) -> dict[str, Any]:
    """Trains from the start or from the saved state.

    Args:
        task: what to train.
        distribution: whose devices train.
        run: where the state is saved after every epoch.
        resumes: whether to resume from there.
        options: see `FitOptions`.
        record: is updated after every epoch; None in every process but the chief.

    Returns:
        What the strategy measured meanwhile.
    """
    recipe, replicas = task.recipe, distribution.replicas
    epochs = recipe.epochs if options.until is None else options.until
    with contextlib.ExitStack() as stack:
        stack.enter_context(precision(recipe.precision))
        stack.enter_context(_without_remapping())
        states, interruption = stack.enter_context(StateFiles(run)), stack.enter_context(Interruption())
        with distribution.scope():
            loss_weights = _changing_loss_weights(recipe, task.spec)
            whole_step = with_global_batch(recipe, replicas)
            model = compile_model(whole_step, task.spec, task.steps, loss_weights, task.teacher)
        save = functools.partial(SaveState, states, distribution, options.interval, interruption, task.steps)
        made = make_callbacks(task, distribution, run, loss_weights, save)
        if task.pretrained:
            measures = recipe.freeze_batch_norm and not resumes
            start_from = _with_new_statistics(task) if measures else task.pretrained
            transfer.copy_body(start_from, model, classifiers=task.keeps_classifiers)
        if task.pretrained or recipe.freeze_batch_norm:  # a resumed run of a slimmed network has no other weights
            transfer.freeze(model, recipe.freeze_until, recipe.freeze_batch_norm)
        start, logs = made.restore(model) if resumes else (START, None)
        if record:
            record.update(made.progress() | {"epochs": start.epoch})
        if options.stop:
            options.stop.watch(made.history)
        if start.epoch == epochs or (options.stop and options.stop.due()):  # it was interrupted after the last one
            return {}
        last: list[keras.callbacks.Callback] = []
        if record:
            last.append(
                keras.callbacks.LambdaCallback(
                    on_epoch_end=lambda epoch, _: record.update(made.progress() | {"epochs": epoch + 1})
                )
            )
            last += [options.stop] if options.stop else []
            last += [options.show(epochs, task.steps)] if options.show else []
        return distribution.fit(
            model,
            lambda first, shard, service: task.training(replicas, first, shard, service),
            options.data_service,
            start=start,
            epochs=epochs,
            steps=task.steps,
            callbacks=[*made.in_order(), *last],
            logs=logs,
        )


def _with_new_statistics(task: Task) -> GoogLeNet:
    """The pretrained network with the running statistics of the images to train on; the same in every process."""
    assert task.pretrained is not None
    images = task.training(1, START, WHOLE, None).map(lambda images, labels: images)
    batches = images.unbatch().batch(STATISTICS_BATCH).take(STATISTICS_BATCHES).as_numpy_iterator()
    until = task.recipe.freeze_until
    return transfer.with_statistics(task.pretrained, task.spec, until, batches, task.keeps_classifiers)


def _changing_loss_weights(recipe: Recipe, spec: Spec) -> dict[str, float | keras.Variable]:
    """As `head_loss_weights`, that of the auxiliary heads as a variable where it changes during the run."""
    weights: dict[str, float | keras.Variable] = {**head_loss_weights(recipe, spec)}
    if recipe.aux_schedule == "linear" and spec.has_aux:
        aux = keras.Variable(recipe.aux_weight, trainable=False, dtype="float32")
        weights |= dict.fromkeys(weights.keys() - {"main"}, aux)
    return weights


@dataclasses.dataclass(frozen=True)
class RunCallbacks:
    """The callbacks of a run.

    Attributes:
        everywhere: those of every process but the last.
        on_chief: those that the chief alone has, after them.
        state: the last.
        history: of them.
        best: those that keep a model; the first is the run's.
        heads: of them.
    """

    everywhere: list[keras.callbacks.Callback]
    on_chief: list[keras.callbacks.Callback]
    state: SaveState
    history: callbacks.History
    best: list[callbacks.KeepBest]
    heads: callbacks.WatchHeads

    def restore(self, model: GoogLeNet) -> tuple[Position, dict[str, float] | None]:
        """Sets the model and all callbacks as they were when the state was saved.

        Returns:
            The next step, and the logs of an epoch of which all steps are done (see `State`).
        """
        state = self.state.restore(model)
        for row in self.history.rows:  # what the heads did before the run was interrupted
            self.heads.on_epoch_end(int(row["epoch"]), row)
        return state.position, state.logs

    def in_order(self) -> list[keras.callbacks.Callback]:
        """All of them, as they are called."""
        return [*self.everywhere, *self.on_chief, self.state]

    def progress(self) -> dict[str, Any]:
        """What `metrics.json` holds of a run that lasts."""
        return {"best_epoch": self.best[0].best_epoch, "warnings": self.heads.warnings}


def make_callbacks(
    task: Task,
    distribution: Strategy,
    run: RunFolder,
    loss_weights: Mapping[str, float | keras.Variable],
    make_state: Callable[[list[callbacks.KeepBest], callbacks.History], SaveState],
) -> RunCallbacks:
    """The callbacks of a run; see `fit` for the arguments."""
    recipe, spec, averages = task.recipe, task.spec, task.recipe.average is not None
    untrained = GoogLeNet(**spec.to_dict())  # of this process alone
    score = "val_average_main_accuracy" if averages else "val_main_accuracy"
    best = [callbacks.KeepBest(run / files.BEST, untrained, score, averages)]
    if averages:
        best.append(callbacks.KeepBest(run / files.RAW, untrained))
    history, heads = callbacks.History(run / files.HISTORY), callbacks.WatchHeads(spec.heads, spec.classes)
    state = make_state(best, history)

    def kept() -> str:
        return describe_kept(run, best[0].best_epoch) if distribution.is_chief else "worker 0 reports what is left"

    shard = distribution.shard()
    replicas_here = distribution.replicas // shard.of
    everywhere: list[keras.callbacks.Callback] = [callbacks.StopOnDivergence(task.steps, kept)]
    if isinstance(aux_weight := loss_weights.get("aux1"), keras.Variable):
        everywhere.append(callbacks.AuxWeight(aux_weight, recipe.aux_weight, recipe.epochs))
    if recipe.unfreeze_epochs and recipe.freeze_until:
        everywhere.append(transfer.Unfreeze(recipe.freeze_until, recipe.unfreeze_epochs, recipe.freeze_batch_norm))
    everywhere.append(keras.callbacks.LambdaCallback(on_epoch_end=state.on_epoch_trained))
    validation = task.validation(replicas_here, shard)
    everywhere.append(
        callbacks.Validate(validation, loss_weights, averages, distribution.sum, state.end_if_interrupted)
    )
    on_chief = [heads, *best, history, keras.callbacks.TensorBoard(run / files.TENSORBOARD, write_graph=False)]
    return RunCallbacks(everywhere, on_chief if distribution.is_chief else [], state, history, best, heads)


def describe_kept(run: RunFolder, best_epoch: int | None) -> str:
    """What is left of a run that ended early, as a clause."""
    if best_epoch is None:
        return "no epoch had finished"
    return f"its best model, of epoch {best_epoch}, is in {run / files.BEST}"


@contextlib.contextmanager
def _without_remapping() -> Iterator[None]:
    """Keeps TensorFlow from fusing batch normalization and ReLU: oneDNN's fused operation turns NaN into zero, which
    would hide broken weights from the loss. The cost is not measurable."""
    before = tf.config.optimizer.get_experimental_options().get("remapping", True)
    tf.config.optimizer.set_experimental_options({"remapping": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"remapping": before})

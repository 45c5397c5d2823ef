"""A search: settings, folder, trials one after the other or on several workers, and what is left of them on disk."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
import numpy as np
import tensorflow as tf
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.src import config as kt_config

from inception_v1 import Spec
from inception_v1.atomic_files import written_whole
from inception_v1.spec import check_choice
from training import run_folder as runs
from training import train
from training.callbacks import StopEarly
from training.data import pipeline, sources
from training.distribution import strategy
from training.distribution.strategy import Engine
from training.recipe import Recipe
from training.report.figures import read_history
from training.run_folder import RunFolder
from tuning import oracles, results
from tuning.report import write as report
from tuning.results import FAILED, Results, Standing
from tuning.space import Budget, Space

SEARCH, TRIALS, RUN, ATTEMPTS = "search.json", "trials", "run", "attempts.json"
STRATEGIES = ("default", "mirrored", "tpu")  # those of one process
MOST_ATTEMPTS = 3  # starts of a trial in the same epoch: what kills the process each time, as want of memory, must end
LONGEST_WAIT = 3600  # seconds for the chief to begin, as Keras Tuner waits for it later
IDLE = 0.1  # seconds between two questions for a trial


@dataclasses.dataclass(frozen=True)
class Given:
    """A user's own datasets in place of a source; as `train.Task` for those who train on it.

    Attributes:
        recipe: how to train.
        spec: the network.
        steps: batches of training in an epoch.
        datasets: (training, validation), of batches (images, labels).
    """

    recipe: Recipe
    spec: Spec
    steps: int
    datasets: tuple[tf.data.Dataset, tf.data.Dataset]
    pretrained: None = None

    @property
    def classes(self) -> list[str]:
        return list(self.spec.class_names or map(str, range(self.spec.classes)))

    def training(self, recipe: Recipe, first_epoch: int, share: pipeline.Share, service: None) -> tf.data.Dataset:
        return self.datasets[0].repeat()

    def validation(self, recipe: Recipe, share: pipeline.Share) -> tf.data.Dataset:
        return self.datasets[1]


Work = train.Task | Given


def search(
    folder: str | os.PathLike,
    space: str = "branches",
    *,
    recipe: Recipe,
    datasets: tuple[tf.data.Dataset, tf.data.Dataset] | None = None,
    network: Spec | None = None,
    tuner: str = "bayesian",
    trials: int | None = 20,
    budget: Budget | None = None,
    also: tuple[str, ...] = (),
    objective: str | None = None,
    patience: int | None = None,
    max_failures: int = 3,
    strategy: str | None = None,
    show: Callable[[Standing], None] | None = None,
    progress: Callable[[int, int], keras.callbacks.Callback] | None = None,
) -> Results | None:
    """Searches a space for the networks that do best, trial after trial, each a run folder of its own.

    At the end, after Ctrl-C too, the folder gets what `report.write` makes: tables, the best network, a page.

    A search that broke off goes on when it is started again with the same arguments: what ended is kept, the trial that
    was interrupted continues after its last whole epoch. `trials` and `max_failures` may differ from before.

    With KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT set (Keras Tuner's variables), the process
    is the chief, which hands out the trials, or a worker, which runs them; all see the same folder.

    Args:
        folder: new, empty, or of this search.
        space: one of `space.SPACES`.
        recipe: how to train each trial, and where from. `recipe.deterministic` makes the scores repeatable.
        datasets: (training, validation) to use in place of the recipe's source: finite, batched (images float
            `(batch, height, width, channels)`, labels int `(batch,)`), already augmented and normalised.
        network: to start from; None for that of the recipe. Needed with `datasets`.
        tuner: one of `oracles.TUNERS`.
        trials: how many, failed ones included; None for all that `grid` or `hyperband` want.
        budget: that every network keeps.
        also: dimensions of the recipe to search as well, of `space.RECIPE`.
        objective: a column of the runs' history, or "accuracy_per_mac" (validation accuracy over the multiply-
            accumulates as a share of the start's); None for the validation accuracy of the main head, of the average
            where the recipe keeps one.
        patience: epochs without a better objective after which a trial ends; None for never.
        max_failures: failed trials in a row that end the search.
        strategy: devices of each trial, one of `STRATEGIES`.
        show: called after each trial.
        progress: makes a callback for each trial, from the number of epochs and of steps in each.

    Returns:
        All trials; None in a worker.

    Raises:
        ValueError: arguments that do not fit, another search's folder, or `max_failures` failures.
        OSError: the folder cannot be written.
    """
    plan = _Plan(space, tuner, trials, budget or Budget(), tuple(also), patience, max_failures, recipe, network)
    chief, worker = _part()
    engine = _engine(strategy, datasets)
    area, work = plan.prepare(datasets, engine, reads=not chief)
    goal = _objective(objective, area)
    home = Path(folder)
    about = plan.settings(goal.name, area)
    with _joined(home, about) if worker else _claimed(home, about):
        oracle = oracles.make(tuner, area, goal, trials, max_failures, _teller(area, show))
        with contextlib.redirect_stdout(io.StringIO()):  # "Reloading Tuner"
            own = _Tuner(oracle, area, work, engine, patience, progress, home)
        kt_config.DEBUG = False  # the traceback of a failed trial is in its file, and need not be on the screen
        if worker:
            return _searched(own)
        own.save()
        try:
            _searched(own)
        finally:
            found = read(home)
            report.write(home, found)
        oracle.check_failures(home)
        return found


def _searched(own: "_Tuner") -> None:
    try:
        own.search()
    except kt.errors.FatalError as error:
        raise error.__cause__ or error from None


def read(folder: str | os.PathLike) -> Results:
    """What a search's folder says. Raises ValueError where there is none."""
    home = Path(folder)
    if not (home / SEARCH).is_file():
        raise ValueError(f"Expected the folder of a search; Received: {str(home)!r}, which holds no {SEARCH}.")
    about = json.loads((home / SEARCH).read_text("utf-8"))
    settings = about["settings"]
    space = _space(settings, Spec(**about["network"]), Recipe(**about["recipe"]))
    goal = _objective(settings["objective"], space)
    found = [
        _record(trial, space, goal, home / TRIALS / f"trial_{trial.trial_id}")
        for trial in oracles.read_trials(home / TRIALS)
    ]
    return Results(settings, goal.name, goal.direction, tuple(found))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The arguments of a search."""

    space: str
    tuner: str
    trials: int | None
    budget: Budget
    also: tuple[str, ...]
    patience: int | None
    max_failures: int
    recipe: Recipe
    network: Spec | None

    def __post_init__(self):
        check_choice("tuner", self.tuner, oracles.TUNERS)
        for name in ("trials", "patience", "max_failures"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected {name} to be 1 or more; Received: {name}={value}.")
        if self.trials is None and self.tuner not in ("grid", "hyperband"):
            raise ValueError(f"Expected a number of trials with tuner {self.tuner!r}; Received: trials=None.")
        if self.recipe.weights:
            raise ValueError("Expected a recipe without weights, which fit one network; Received: one with them.")

    def prepare(self, datasets, engine: Engine, reads: bool) -> tuple[Space, Work | None]:
        """The space and what its trials work on; nothing of that for a process that only hands them out."""
        if datasets is not None:
            start, steps = _fitting(self.network, datasets)
            space = self._space(start)
            return space, Given(self.recipe, start, steps, datasets)
        builder, _ = sources.load(self.recipe)
        space = self._space(train.network(self.recipe, builder, self.network))
        return space, train.prepared(self.recipe, None, engine.replicas, space.start) if reads else None

    def _space(self, start: Spec) -> Space:
        return _space(self._of_space(), start, self.recipe)

    def _of_space(self) -> dict[str, Any]:
        return {"space": self.space, "also": self.also, "tuner": self.tuner} | dataclasses.asdict(self.budget)

    def settings(self, objective: str, space: Space) -> dict[str, Any]:
        """What tells this search from others."""
        own = self._of_space() | {"trials": self.trials, "objective": objective}
        own |= {"patience": self.patience, "max_failures": self.max_failures}
        about = {"settings": own, "recipe": dataclasses.asdict(self.recipe), "network": space.start.to_dict()}
        return json.loads(json.dumps(about))


def _part() -> tuple[bool, bool]:
    """Whether this process is the chief, or a worker, of several: Keras Tuner's variables say so."""
    if "KERASTUNER_ORACLE_IP" not in os.environ:
        return False, False
    chief = "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")
    return chief, not chief


def _space(settings: dict[str, Any], start: Spec, recipe: Recipe) -> Space:
    budget = Budget(*(settings[field.name] for field in dataclasses.fields(Budget)))
    return Space(settings["space"], start, recipe, tuple(settings["also"]), budget, settings["tuner"] == "grid")


def _engine(name: str | None, datasets) -> Engine:
    name = name or "default"
    check_choice("strategy", name, STRATEGIES)
    if datasets is not None and name != "default":
        raise ValueError(f"Expected strategy 'default' with datasets of your own; Received: strategy={name!r}.")
    return strategy.make(name)


def _fitting(network: Spec | None, datasets) -> tuple[Spec, int]:
    """The network as it is, and the batches of training, once they fit each other."""
    if network is None:
        raise ValueError("Expected a network (a Spec) with datasets; Received: network=None.")
    for ds in datasets:
        element = ds.element_spec
        shape = element[0].shape if isinstance(element, tuple) and len(element) == 2 else None
        if shape is None or not shape.is_compatible_with((None, *network.input_shape)):
            raise ValueError(
                f"Expected datasets of (images, labels), each of the images {network.input_shape}; Received: {element}."
            )
    steps = int(datasets[0].cardinality())
    if steps == tf.data.INFINITE_CARDINALITY or int(datasets[1].cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError("Expected finite datasets, one pass of which is an epoch; Received: an infinite one.")
    return network, steps if steps > 0 else int(datasets[0].reduce(0, lambda count, _: count + 1))


def _objective(name: str | None, space: Space) -> kt.Objective:
    main = f"val_{'average_' if space.recipe.average is not None else ''}main_accuracy"
    heads = space.start.heads
    known = [f"{head}_{kind}" for head in heads for kind in ("accuracy", "top5_accuracy")]
    known += ["loss", *(f"{head}_loss" for head in heads if len(heads) > 1)]
    prefixes = ["val_", "val_average_"] if space.recipe.average is not None else ["val_"]
    known += [f"{prefix}{name}" for prefix in prefixes for name in known]
    known += [results.PER_MAC]
    name = main if name is None else name
    check_choice("objective", name, known)
    return kt.Objective(name, "min" if name.endswith("loss") else "max")


@contextlib.contextmanager
def _claimed(home: Path, about: dict[str, Any]) -> Iterator[None]:
    """Keeps a folder for a search while it lasts, and writes down which search it is.

    Raises:
        ValueError: a file, another search's folder, or one that another process works on.
    """
    _check_same(home, about)
    with RunFolder(home).locked():
        runs.write_json(home / SEARCH, about)
        yield


@contextlib.contextmanager
def _joined(home: Path, about: dict[str, Any]) -> Iterator[None]:
    """Waits until the chief has claimed the folder; raises ValueError where it is for another search, or never does."""
    end = time.monotonic() + LONGEST_WAIT
    while not (home / SEARCH).is_file():
        if time.monotonic() > end:
            raise ValueError(
                f"Expected the chief to begin the search within {LONGEST_WAIT} s; Received: nothing in {home}."
            )
        time.sleep(IDLE)
    _check_same(home, about)
    yield


def _check_same(home: Path, about: dict[str, Any]) -> None:
    expected = "Expected a new folder for the search"
    if home.exists() and not home.is_dir():
        raise ValueError(f"{expected}; Received: {str(home)!r}, which is a file.")
    if not home.exists() or all(path.name == runs.LOCK for path in home.iterdir()):
        return
    if not (home / SEARCH).is_file():
        raise ValueError(f"{expected}; Received: {str(home)!r}, which holds no {SEARCH} and is left alone.")
    before = json.loads((home / SEARCH).read_text("utf-8"))
    free = ("trials", "max_failures")
    differ = [
        f"{name} {before[part].get(name)!r}, not {value!r}"
        for part in about
        for name, value in about[part].items()
        if before[part].get(name) != value and name not in free
    ]
    if differ:
        raise ValueError(f"{expected}; Received: {str(home)!r}, a search with {', '.join(differ)}.")


def _teller(space: Space, show: Callable[[Standing], None] | None):
    """What an oracle calls when a trial ended."""

    def tell(oracle, trial):
        ended = len(oracle.end_order)
        each = (time.monotonic() - oracle.began) / max(ended - oracle.before, 1)
        left = None if oracle.max_trials is None else each * (oracle.max_trials - ended)
        best = [one for one in oracle.get_best_trials(1) if one.score is not None]
        cost = space.cost(space.tidied(trial.hyperparameters.values))
        shares = tuple(own / start for own, start in zip(cost, space.reference, strict=True))
        show(Standing(trial, oracle.objective.name, ended, oracle.max_trials, next(iter(best), None), left, shares))

    return tell if show else None


class _Tuner(kt.Tuner):
    """Runs the trials that an oracle hands out."""

    def __init__(self, oracle, space: Space, work: Work | None, engine: Engine, patience, progress, home: Path):
        self._space, self._work, self._engine = space, work, engine
        self._patience, self._progress, self._goal = patience, progress, oracle.objective
        super().__init__(oracle, directory=str(home), project_name=TRIALS)

    def pre_create_trial(self):
        time.sleep(IDLE)

    def save(self):
        if not self._is_worker():
            self.oracle.save()
        with written_whole(Path(self._get_tuner_fname())) as part:
            super(BaseTuner, self).save(str(part))

    def run_trial(self, trial, *_, **__):
        values = trial.hyperparameters.values
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            if past := values.get("tuner/trial_id"):
                _take_over(Path(self.get_trial_dir(past)) / RUN, folder / RUN)
            until = values.get("tuner/epochs", self._space.recipe.epochs)
            with _counted(folder):
                self._train(folder / RUN, self._space.tidied(values), until)
        except OSError as error:  # a full disk, which would fail every trial
            raise kt.errors.FatalRuntimeError(str(error)) from error
        finally:
            keras.utils.clear_session()
        best = _best_epoch(
            read_history(folder / RUN / runs.HISTORY), self._goal, self._space.cost(values)[1], self._space
        )
        return {self._goal.name: best[0]}

    def _train(self, folder: Path, values: dict[str, Any], until: int) -> None:
        """One run without its test, from where it stands."""
        recipe, spec = self._space.recipe_of(values), self._space.network(values)
        work = dataclasses.replace(self._work, recipe=recipe, spec=spec)
        run = RunFolder(folder)
        if (run / runs.METRICS).is_file() and run.metrics()["status"] == "finished":
            return  # killed before the oracle heard of it
        resumes = run.check_usable(recipe, False, self._engine.replicas, spec)
        train.seed(recipe)
        with run.locked(), self._engine.faults():
            if not resumes:
                run.create(recipe, spec, work.classes)
            known = {"strategy": self._engine.name, "replicas": self._engine.replicas}
            with train.recorded(run, known) as metrics:
                train.fit(
                    work,
                    self._engine,
                    run,
                    resumes,
                    metrics,
                    until=until,
                    stop=self._stop(values),
                    show=self._progress,
                )

    def _stop(self, values: dict[str, Any]) -> StopEarly | None:
        if self._patience is None:
            return None
        share = self._space.cost(values)[1] / self._space.reference[1]
        return StopEarly(
            lambda row: results.objective(row, self._goal.name, share), self._goal.direction, self._patience
        )


def _take_over(past: Path, folder: Path) -> None:
    """Begins a run with what another one reached, whole or not at all."""
    if folder.exists():
        return
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(past, part, ignore=shutil.ignore_patterns(runs.LOCK))
    copied = RunFolder(part)
    runs.write_json(part / runs.METRICS, copied.metrics() | {"status": "running", "seconds": 0.0})
    part.rename(folder)


@contextlib.contextmanager
def _counted(folder: Path) -> Iterator[None]:
    """Gives up on a trial that has taken its process along several times without getting an epoch further."""
    state, file = folder / RUN / runs.STATE, folder / ATTEMPTS
    epochs = RunFolder(folder / RUN).metrics()["epochs"] if state.is_file() else 0
    before = json.loads(file.read_text()) if file.is_file() else {"epochs": epochs, "starts": 0}
    starts = before["starts"] + 1 if before["epochs"] == epochs else 1
    if starts > MOST_ATTEMPTS:
        raise ValueError(f"Expected the process to outlive epoch {epochs + 1}; Received: {MOST_ATTEMPTS} kills in it.")
    runs.write_json(file, {"epochs": epochs, "starts": starts})
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # it lives, however the trial ended


def _best_epoch(
    history: dict[str, np.ndarray], goal: kt.Objective, macs: int, space: Space
) -> tuple[float, dict[str, float]]:
    """The objective at its best epoch (of equals the latest), and all numbers of that epoch."""
    values = results.objective(history, goal.name, macs / space.reference[1])
    signed = values if goal.direction == "max" else -values
    epoch = len(signed) - 1 - int(np.argmax(signed[::-1]))
    return float(values[epoch]), {name: float(column[epoch]) for name, column in history.items()}


def _record(trial, space: Space, goal: kt.Objective, folder: Path) -> results.Trial:
    values = space.tidied(trial.hyperparameters.values)
    params, macs = space.cost(values)
    score, metrics, epochs, seconds = None, {}, 0, 0.0
    if (folder / RUN / runs.HISTORY).is_file():
        history = read_history(folder / RUN / runs.HISTORY)
        score, metrics = _best_epoch(history, goal, macs, space)
        epochs = len(history["epoch"])
    if (folder / RUN / runs.METRICS).is_file():
        seconds = RunFolder(folder / RUN).metrics()["seconds"]
    return results.Trial(
        number=int(trial.trial_id),
        status=trial.status,
        values=values,
        spec=space.network(values),
        recipe=space.recipe_of(values),
        params=params,
        macs=macs,
        score=score if trial.status == results.COMPLETED else None,
        metrics=metrics,
        epochs=epochs,
        seconds=seconds,
        message=(trial.message or "") if trial.status == FAILED else "",
    )

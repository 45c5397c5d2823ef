"""The trials of a search: each a run folder of its own, resumed or given up according to its files."""

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
import numpy as np
import tensorflow as tf

from inception_v1.atomic_files import write_json
from inception_v1.spec import Spec
from training import run_folder
from training.callbacks import StopEarly
from training.data.pipeline import Position, Shard
from training.distillation import Distillation
from training.distribution.strategy import Strategy
from training.environment import describe_environment
from training.errors import UserError
from training.recipe import Recipe
from training.report.run_page import write_run_page
from training.run_folder import RunFolder, read_history
from training.run_state import DEFAULT_INTERVAL, Interval, read_position
from training.task import RecipeTask
from training.train import FitOptions, RunRecord, fit, set_seed
from tuning import results
from tuning.keras_tuner_patches import PersistentTuner
from tuning.oracles import InBudget
from tuning.space import Space

TRIALS, RUN, ATTEMPTS = "trials", "run", "attempts.json"
MOST_ATTEMPTS = (
    3  # starts of a trial from the same state: what kills the process each time, as want of memory, must end
)
IDLE = 0.1  # seconds between two requests for a trial


@dataclasses.dataclass(frozen=True)
class DatasetTask:
    """A `Task` on a user's own datasets, in place of a source.

    Attributes:
        recipe: how to train.
        spec: the network.
        steps: batches of training in an epoch.
        datasets: (training, validation), of batches (images, labels).
        teacher: what the network learns beside the labels, or None.
    """

    recipe: Recipe
    spec: Spec
    steps: int
    datasets: tuple[tf.data.Dataset, tf.data.Dataset]
    pretrained: None = None
    keeps_classifiers: bool = False
    teacher: Distillation | None = None

    @property
    def classes(self) -> list[str]:
        """Names in label order; numbers where the network has none."""
        return list(self.spec.class_names or map(str, range(self.spec.classes)))

    def create(self, run: RunFolder) -> None:
        """Makes or empties a run's folder and writes what is known before training."""
        run.create(self.recipe, self.spec, self.classes)

    def training(self, replicas: int, start: Position, shard: Shard, service: str | None) -> tf.data.Dataset:
        # Skips batches instead of reading others, since a dataset may shuffle each pass in its own way.
        return self.datasets[0].repeat().skip(start.epoch * self.steps + start.step)

    def validation(self, replicas: int, shard: Shard) -> tf.data.Dataset:
        return self.datasets[1]


AnyTask = RecipeTask | DatasetTask


@dataclasses.dataclass(frozen=True)
class TrialOptions:
    """How trials are run.

    Attributes:
        patience: epochs without a better objective after which a trial ends; None for never.
        interval: between two states of a trial that are saved within an epoch.
        progress: makes a callback for each trial, from the number of epochs and of steps in each.
    """

    patience: int | None = None
    interval: Interval = DEFAULT_INTERVAL
    progress: Callable[[int, int], keras.callbacks.Callback] | None = None


class TrialRunner(PersistentTuner):
    """Runs the trials that an oracle hands out.

    Args:
        oracle: hands them out.
        task: what they train; None in a process that only hands out trials.
        distribution: devices of each trial.
        options: see `TrialOptions`.
        folder: of the search.
    """

    def __init__(
        self,
        oracle: InBudget,
        task: AnyTask | None,
        distribution: Strategy,
        options: TrialOptions,
        folder: Path,
    ) -> None:
        self._space, self._task, self._distribution = oracle.space, task, distribution
        self._options, self._objective = options, oracle.objective
        super().__init__(oracle, folder, TRIALS)

    def pre_create_trial(self) -> None:
        time.sleep(IDLE)

    def run_trial(self, trial: Any, *_: Any, **__: Any) -> dict[str, float]:
        values = trial.hyperparameters.values
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            if past := values.get("tuner/trial_id"):
                _copy_run(Path(self.get_trial_dir(past)) / RUN, folder / RUN)
            until = values.get("tuner/epochs", self._space.recipe.epochs)
            with _counted_attempt(folder):
                self._train(RunFolder(folder / RUN), self._space.exact(values), until)
        except OSError as error:  # a full disk, which would fail every trial
            raise kt.errors.FatalRuntimeError(str(error)) from error
        finally:
            self._release()
        history = read_history(folder / RUN / run_folder.HISTORY)
        score = best_epoch(history, self._objective, self._space.cost(values)[1], self._space)[0]
        return {self._objective.name: score}

    def _train(self, run: RunFolder, values: Mapping[str, Any], until: int) -> None:
        """Trains a sample's network, from where it was interrupted."""
        assert self._task is not None
        task = dataclasses.replace(self._task, recipe=self._space.recipe_of(values), spec=self._space.network(values))
        options = FitOptions(until, self._stop(values), self._options.interval, show=self._options.progress)
        train_untested(task, self._distribution, run, options)

    def _release(self) -> None:
        """Frees what a trial held."""
        keras.utils.clear_session()

    def _stop(self, values: Mapping[str, Any]) -> StopEarly | None:
        if self._options.patience is None:
            return None
        macs, name = self._space.cost(values)[1] / self._space.reference[1], self._objective.name
        direction = self._objective.direction
        return StopEarly(lambda row: results.objective(row, name, macs), direction, self._options.patience)


def is_finished(run: RunFolder) -> bool:
    """Whether a folder holds a run that ended as it should."""
    return (run / run_folder.METRICS).is_file() and run.metrics()["status"] == "finished"


def train_untested(task: AnyTask, distribution: Strategy, run: RunFolder, options: FitOptions) -> None:
    """One run without its test, from where it was interrupted; nothing where it is finished.

    Raises:
        UserError: a folder in use or of another run, or a loss that is not finite.
        OSError: the folder cannot be written.
        KeyboardInterrupt: after noting it in the run's `metrics.json`.
    """
    if is_finished(run):
        return  # of a trial: killed before the oracle heard of it
    resumes = run.check_usable(task.recipe, task.spec, False, distribution.replicas)
    set_seed(task.recipe)
    with run.locked(), distribution.detect_failures():
        if not resumes:
            task.create(run)
        known = {"strategy": distribution.name, "replicas": distribution.replicas}
        known |= {"environment": describe_environment()}
        with RunRecord(run, known) as record:
            record.update(fit(task, distribution, run, resumes, options, record))
        write_run_page(run)


def best_epoch(
    history: dict[str, np.ndarray], objective: kt.Objective, macs: int, space: Space
) -> tuple[float, dict[str, float]]:
    """The objective at its best epoch (of equals the latest), and all numbers of that epoch."""
    values = results.objective(history, objective.name, macs / space.reference[1])
    signed = values if objective.direction == "max" else -values
    epoch = len(signed) - 1 - int(np.argmax(signed[::-1]))
    return float(values[epoch]), {name: float(column[epoch]) for name, column in history.items()}


def _copy_run(past: Path, folder: Path) -> None:
    """Begins a run with what another one reached, whole or not at all."""
    if folder.exists():
        return
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(past, part, ignore=shutil.ignore_patterns(run_folder.LOCK))
    copied = RunFolder(part)
    write_json(part / run_folder.METRICS, copied.metrics() | {"status": "running", "seconds": 0.0})
    part.rename(folder)


@contextlib.contextmanager
def _counted_attempt(folder: Path) -> Iterator[None]:
    """Gives up on a trial that has killed its process several times after the same step.

    Raises:
        UserError: the process did not reach the next saved state in as many attempts as there are.
    """
    position, file = read_position(RunFolder(folder / RUN)), folder / ATTEMPTS
    reached = {"epochs": position.epoch, "step": position.step}
    before = json.loads(file.read_text()) if file.is_file() else {}
    starts = before["starts"] + 1 if before.items() >= reached.items() else 1
    if starts > MOST_ATTEMPTS:
        raise UserError(
            f"The process of this trial was killed {MOST_ATTEMPTS} times in epoch {position.epoch + 1}, so that the "
            "trial is given up. The usual cause is too little memory."
        )
    write_json(file, {**reached, "starts": starts})
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # the process survived, however the trial ended

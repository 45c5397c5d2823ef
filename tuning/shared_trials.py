"""Trials on shared weights: the widest network is trained once, and a trial scores a slice of it."""

import dataclasses
import functools
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from inception_v1.atomic_files import write_json
from training import run_folder
from training.callbacks import write_history
from training.data.pipeline import START, WHOLE
from training.distribution.strategy import Strategy
from training.errors import DivergenceError
from training.run_folder import RunFolder
from training.task import RecipeTask
from training.train import FitOptions, head_loss_weights, set_seed
from tuning.oracles import InBudget
from tuning.rank_correlation import evenly_spread
from tuning.results import Results, Trial
from tuning.sandwich import make_sandwich, vector, widest
from tuning.shared_settings import SharedSettings
from tuning.slice_scores import SliceScorer
from tuning.space import Space
from tuning.training_examples import training_examples
from tuning.trials import AnyTask, TrialOptions, TrialRunner, is_finished, train_untested

WIDEST, ALONE = "widest", "alone"  # folders in that of the search: the shared weights, and trials trained alone

log = logging.getLogger(__name__)


class SharedTrialRunner(TrialRunner):
    """Trains the widest network of a space before the first trial, and scores its slices.

    Args:
        oracle, task, distribution, options, folder: as of `TrialRunner`.
        settings: of the shared weights.
    """

    def __init__(
        self,
        oracle: InBudget,
        task: AnyTask,
        distribution: Strategy,
        options: TrialOptions,
        folder: Path,
        settings: SharedSettings,
    ) -> None:
        super().__init__(oracle, task, distribution, options, folder)
        self._shared_task, self._settings, self._folder = task, settings, folder

    def train_widest(self) -> None:
        """Trains the shared weights as a run in `WIDEST`, from where it was interrupted."""
        space, task = self._space, self._shared_task
        run = RunFolder(self._folder / WIDEST)
        if is_finished(run):
            return
        sandwich = make_sandwich(space, self._settings.step_samples, task.steps * space.recipe.epochs)
        task = dataclasses.replace(task, spec=widest(space), teacher=sandwich)
        options = FitOptions(interval=self._options.interval, show=self._options.progress)
        train_untested(task, self._distribution, run, options)
        keras.utils.clear_session()

    def pre_create_trial(self) -> None:
        """Does not wait, since no other process asks for trials."""

    @functools.cached_property
    def _scorer(self) -> SliceScorer:
        """What scores slices of the best epoch of the shared weights; repeatable from the recipe's seed."""
        recipe, task = self._space.recipe, self._shared_task
        set_seed(recipe)
        model = RunFolder(self._folder / WIDEST).model()
        weights = head_loss_weights(recipe, model.spec)
        images = training_images(task, self._settings.statistics_images)
        return SliceScorer(model, images, task.validation(1, WHOLE), weights, prefix(self._space))

    def _train(self, run: RunFolder, values: Mapping[str, Any], until: int) -> None:
        """Scores a slice; its folder has the files of a run, without a model of its own."""
        if is_finished(run):
            return  # killed before the oracle heard of it
        began = time.monotonic()
        scores = self._scorer(vector(self._space, values))
        run.create(self._space.recipe, self._space.network(values), self._shared_task.classes)
        write_history(run / run_folder.HISTORY, [{"epoch": 0, **scores}])
        seconds = round(time.monotonic() - began, 2)
        write_json(run / run_folder.METRICS, {"status": "finished", "epochs": 0, "seconds": seconds, "slice": True})

    def _release(self) -> None:
        """Keeps the traced functions, which the next trial calls."""


def prefix(space: Space) -> str:
    """What the names of scores begin with: the weights of the best epoch are averages where the recipe keeps some."""
    return "val_" if space.recipe.average is None else "val_average_"


def training_images(task: AnyTask, count: int) -> np.ndarray:
    """Training images that statistics are measured on, fewer than `count` where there are not as many: as evaluation
    takes them, or of a user's datasets as training does."""
    if isinstance(task, RecipeTask):
        return training_examples(task.splits, task.recipe, count).images
    batches = task.training(1, START, WHOLE, None).take(task.steps).map(lambda images, labels: images)
    return np.stack(list(batches.unbatch().take(count).as_numpy_iterator()))


def to_retrain(found: Results, settings: SharedSettings) -> list[Trial]:
    """The trials that are trained alone: the best, or with `pareto` those evenly spread over the front, the most
    accurate first; then those evenly spread over the ranking."""
    best = evenly_spread(found.front[::-1], settings.retrain) if found.pareto else found.ranked[: settings.retrain]
    chosen = [*best, *evenly_spread(found.ranked, settings.rank_check)]
    return list({trial.number: trial for trial in chosen}.values())


def train_alone(
    home: Path, trials: Iterable[Trial], task: AnyTask, distribution: Strategy, options: TrialOptions
) -> None:
    """Trains the networks of trials by the recipe, each as a run folder in `ALONE`; what is finished is kept.

    A loss that is not finite ends that run alone, and is logged.

    Args:
        home: folder of the search.
        trials: which.
        task: of the search.
        distribution: whose devices train.
        options: of the trials.
    """
    for trial in trials:
        run = RunFolder(home / ALONE / f"trial_{trial.number}")
        own = dataclasses.replace(task, recipe=trial.recipe, spec=trial.spec)
        try:
            train_untested(own, distribution, run, FitOptions(interval=options.interval, show=options.progress))
        except DivergenceError as error:
            log.warning("trial %d alone: %s", trial.number, error)
        finally:
            keras.utils.clear_session()

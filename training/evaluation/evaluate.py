"""Evaluation of trained runs, alone and as an ensemble."""

import os
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from inception_v1.extras import check_installed
from inception_v1.spec import check_choice
from training.data.pipeline import Batches
from training.data.scan import scan, without_unreadable
from training.data.split import Split
from training.errors import UserError
from training.evaluation.crops import CROP_SCALES, crop_batches
from training.evaluation.metrics import Predictions, summarize
from training.evaluation.predictor import predict
from training.run_folder import RunFolder
from training.run_images import common_images, load_splits, warn_of_changes

Folder = str | os.PathLike[str]
Track = Callable[[tf.data.Dataset], Iterable[typing.Any]]


class Evaluation(typing.NamedTuple):
    """Predictions of one or several models for a split.

    Attributes:
        runs: folders of the models that were averaged.
        split: TFDS split specification.
        crops: crops of each image that were averaged.
        classes: names in label order.
        predictions: their mean, of the heads that all models have.
    """

    runs: list[str]
    split: str
    crops: int
    classes: list[str]
    predictions: Predictions

    def result(self) -> dict[str, typing.Any]:
        """{"runs", "split", "crops", and what `summarize` returns}."""
        known = {"runs": self.runs, "split": self.split, "crops": self.crops}
        return known | summarize(self.predictions, self.classes)


def evaluations(
    folders: Sequence[Folder], split: str | None = None, crops: Sequence[int] = (1,), track: Track = iter
) -> Iterator[Evaluation]:
    """Evaluates the first run alone and all runs as an ensemble, at each number of crops in turn.

    The ensemble is the paper's: the mean of the softmax over crops and models. One model is in memory at a time, and
    the sum of the probabilities.

    Args:
        folders: of the runs. Their networks may differ in anything but the classes.
        split: TFDS split specification; None for the runs' test split.
        crops: numbers of crops of each image whose probabilities are averaged: 1, 10 or 144 (see `crops.crop`).
        track: wraps the dataset of batches, for instance to show progress.

    Yields:
        At each number of crops the first run's evaluation and then, if there are more, that of all.

    Raises:
        UserError: no run, not a run, no trained model yet, an unknown split, another number of crops, or runs of
            different sources, classes or test splits.
        MissingExtraError: a library of the extra [train] is missing.

    Source: arXiv 1409.4842, section 7 and Table 3.
    """
    for count in crops:
        check_choice("crops", count, (1, *CROP_SCALES))
    runs = [RunFolder(folder) for folder in folders]
    images = common_split(runs, split)
    for count in crops:
        sums: dict[str, np.ndarray] = {}
        for number, run in enumerate(runs, 1):
            by_head, labels = predict_split(run, images, count, track)
            sums = {head: sums[head] + by_head[head] for head in sums if head in by_head} if sums else by_head
            if number in (1, len(runs)):
                mean = Predictions({head: total / number for head, total in sums.items()}, labels)
                yield Evaluation([str(run.path) for run in runs[:number]], images.name, count, run.classes(), mean)


def evaluate(
    folders: Folder | Sequence[Folder], split: str | None = None, crops: int = 1, track: Track = iter
) -> dict[str, typing.Any]:
    """Evaluates the best model of a run, or the ensemble of several.

    Images that cannot be read are left out, as in training. Of a folder of images, the test split is that of the time
    when the run began; several runs are evaluated on the images that are in the test split of all.

    Args:
        folders: of the run or runs.
        split: TFDS split specification; None for the runs' test split.
        crops: crops of each image whose probabilities are averaged: 1, 10 or 144 (see `crops.crop`).
        track: wraps the dataset of batches, for instance to show progress.

    Returns:
        {"runs": folders, "split": ..., "crops": ..., "images": count, "heads": as `metrics.score` returns, "classes":
        as `metrics.by_class` returns}.

    Raises:
        UserError, MissingExtraError: as `evaluations` does.
    """
    several = [folders] if isinstance(folders, str | os.PathLike) else folders
    *_, last = evaluations(several, split, (crops,), track)
    return last.result()


def predict_split(run: RunFolder, split: Split, crops: int, track: Track = iter) -> Predictions:
    """Predictions of a run's best model for a split, averaged over so many crops of each image."""
    recipe = run.recipe()
    ds = Batches(split, recipe).evaluation() if crops == 1 else crop_batches(split, recipe, crops)
    return predict(run.model(), track(ds))


def common_split(runs: Sequence[RunFolder], split: str | None) -> Split:
    """The readable images of the test split of all runs, or of `split` in their source.

    Raises:
        UserError: the runs do not agree on it.
        MissingExtraError: a library of the extra [train] is missing, also one that metrics alone need.
    """
    check_installed("train")
    if not runs:
        raise UserError("Expected at least one run; Received: none.")
    for run in runs:
        run.check_trained()
    _check_same("source", runs, [run.recipe().source for run in runs])
    _check_same("classes", runs, [run.classes() for run in runs])
    tests = [load_splits(run, split).test for run in runs]
    if tests[0].classes != runs[0].classes():
        raise UserError(
            f"Expected the classes that {str(runs[0].path)!r} was trained on; "
            f"Received: others from {runs[0].recipe().source!r}."
        )
    _check_same("test split", runs, [test.name for test in tests])
    test = common_images(runs, tests) if split is None else tests[0]
    (found,) = scan([test])
    if split is None:
        warn_of_changes(runs[0], test, found)
    return without_unreadable(test, found)


def _check_same(what: str, runs: Sequence[RunFolder], values: Sequence[object]) -> None:
    for run, value in zip(runs, values, strict=True):
        if value != values[0]:
            theirs, own = (text if len(text) <= 100 else f"{text[:97]}..." for text in (repr(values[0]), repr(value)))
            raise UserError(
                f"Expected runs of the same {what}; Received: {theirs} in {str(runs[0].path)!r} "
                f"and {own} in {str(run.path)!r}."
            )

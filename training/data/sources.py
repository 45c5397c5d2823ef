"""Sources of images: every one is a `tfds.core.DatasetBuilder`, with class names, splits and slices."""

import contextlib
import difflib
import io
import sys
from pathlib import Path
from typing import NamedTuple

import filelock
import tensorflow_datasets as tfds

from training.data.builders import FASHION_MNIST_FILES, Digits, FashionMnistFiles
from training.data.image_folder import VALIDATION_NAMES, ImageFolder
from training.data.split import Split
from training.errors import UserError
from training.recipe import Recipe


class Splits(NamedTuple):
    """The splits of one run. They are disjoint unless the dataset itself has fewer splits."""

    train: Split
    validation: Split
    test: Split

    def names(self) -> dict[str, str]:
        """Field to TFDS split specification."""
        return {field: split.name for field, split in self._asdict().items()}

    def skipped(self) -> dict[str, list[str]]:
        """Field to the names of the images that are left out."""
        return {field: list(split.skip) for field, split in self._asdict().items()}


FOLDER = "folder:"  # before the path of a folder


def load(recipe: Recipe) -> Splits:
    """Finds and prepares the source that a recipe names, and decides its splits.

    Args:
        recipe: its `source` is "digits", "fashion_mnist", "folder:PATH" or any name that `tfds.builder` takes; its
            `*_split` fields, where given, are TFDS split specifications.

    Returns:
        The splits of the prepared source, unreadable images included.

    Raises:
        UserError: an unknown source (the nearest names are listed), a folder that cannot be used, a dataset that
            does not classify images, or an unknown split.
    """
    builder = _builder(recipe.source, recipe.data_dir)
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not isinstance(features["label"], tfds.features.ClassLabel):
        raise UserError(
            f"Expected a dataset of images with one class label; Received: {recipe.source!r} with {features}."
        )
    # TFDS reports what it prepares: not on standard output, which is the command's, and not what takes seconds.
    report = io.StringIO() if isinstance(builder, Digits | FashionMnistFiles) else sys.stderr
    with contextlib.redirect_stdout(report), contextlib.redirect_stderr(report):
        builder = _prepared(builder, recipe)
    splits = _choose_splits(builder, recipe)
    for field, split in splits._asdict().items():
        try:
            count = split.size
        except ValueError as error:  # of TFDS
            raise UserError(f"Expected {field}_split to be a split of {recipe.source!r}: {error}") from error
        if not count:
            raise UserError(f"Expected images in {field}_split; Received: {split.name!r}, which is empty.")
    return splits


def _builder(source: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    if source.startswith(FOLDER):
        return ImageFolder(source.removeprefix(FOLDER))
    if source == "digits":
        return Digits(data_dir=data_dir)
    if source == "fashion_mnist" and FASHION_MNIST_FILES.is_dir():
        return FashionMnistFiles(data_dir=data_dir)
    try:
        return tfds.builder(source, data_dir=data_dir)
    except AssertionError as error:  # TFDS' way to say which versions there are
        if ":" not in source:
            raise
        reason = str(error).rpartition('}": ')[2]  # after the arguments that TFDS prints
        raise UserError(f"Expected a version of the dataset that is here; Received: {source!r}. {reason}") from None
    except tfds.core.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(source, known, n=3)
        hint = f" Nearest: {', '.join(near)}." if near else ""
        raise UserError(
            "Expected source to be 'digits', 'fashion_mnist', 'folder:PATH' or a name of TensorFlow Datasets; "
            f"Received: source={source!r}.{hint}"
        ) from None


def _prepared(builder: tfds.core.DatasetBuilder, recipe: Recipe) -> tfds.core.DatasetBuilder:
    """The builder once its files are there; of several processes one writes them and the others wait."""
    place = Path(builder.data_dir)
    if isinstance(builder, ImageFolder) or "://" in str(builder.data_dir) or place.exists():
        builder.download_and_prepare()
        return builder
    place.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(str(place.parent / f".{place.name}.lock")):
        if place.exists():  # another process has prepared it meanwhile
            builder = _builder(recipe.source, recipe.data_dir)
        builder.download_and_prepare()
    return builder


def _choose_splits(builder: tfds.core.DatasetBuilder, recipe: Recipe) -> Splits:
    """The recipe's own, else the dataset's, else slices of "train" that do not overlap."""
    known = list(builder.info.splits)
    validation = next((name for name in VALIDATION_NAMES if name in known), None)
    test = recipe.test_split or ("test" if "test" in known else None)
    if test is None:  # the usual folder of two: choices are made on a slice of train, val is the final word
        validation, test = None, validation
    train, *rest = _slices(builder, 1 + (validation is None) + (test is None), round(100 * recipe.validation_fraction))
    validation, test = validation or rest.pop(0), test or rest.pop(0)
    names = (recipe.train_split or train, recipe.validation_split or validation, test)
    return Splits(*(Split(builder, name) for name in names))


def _slices(builder: tfds.core.DatasetBuilder, count: int, percent: int) -> list[str]:
    """Slices of "train", all but the first of so many percent.

    Where a folder has so few images that one of them would be empty, they are of numbers of images.
    """
    if count == 1:
        return ["train"]
    cuts = [100 - percent * left for left in range(count - 1, 0, -1)]
    names = _consecutive([f"{cut}%" for cut in cuts])
    if isinstance(builder, ImageFolder) and not all(builder.files(name) for name in names):
        total = len(builder.files("train"))
        size = max(1, round(total * percent / 100))
        names = _consecutive([str(max(0, total - size * left)) for left in range(count - 1, 0, -1)])
    return names


def _consecutive(cuts: list[str]) -> list[str]:
    """The slices of "train" between the cuts."""
    return [f"train[{low}:{high}]" for low, high in zip(["", *cuts], [*cuts, ""], strict=True)]

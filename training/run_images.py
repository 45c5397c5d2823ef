"""Which images a run learns from and which it is tested on: decided once, kept in its folder, and followed from there.

A source may change under a run. Of a folder the run keeps a list of the images; of other datasets `metrics.json` has
the version, whose images and slices do not change, and a digest of each split.
"""

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data import sources
from training.data.image_folder import ImageFolder
from training.data.image_list import ImageList, read_image_list
from training.data.scan import Scan, examples_of
from training.data.sources import FOLDER, Splits
from training.data.split import Split
from training.errors import UserError
from training.recipe import Recipe
from training.run_folder import IMAGES, METRICS, RunFolder

log = logging.getLogger(__name__)


def choose_splits(recipe: Recipe) -> Splits:
    """The splits of a new run.

    Where it starts from the weights of another run on a folder, images that lie in a split of that run stay in it, so
    that no test image was a training image before. Splits that the recipe names are taken as they are, with a warning
    where that is not so.

    Raises:
        UserError: as `sources.load`.
    """
    splits = sources.load(recipe)
    kept = Path(recipe.weights).parent / IMAGES if recipe.weights else None
    if kept and kept.is_file() and recipe.source.startswith(FOLDER) and any("[" in split.name for split in splits):
        return _like(read_image_list(kept), splits, recipe)
    return splits


def load_splits(run: RunFolder, test_split: str | None = None) -> Splits:
    """The splits of a run as they were when it began.

    Args:
        run: the folder.
        test_split: TFDS split specification in place of the run's, of the images that are there now.

    Raises:
        UserError: as `sources.load`; the images of the run are not known, or not there any more.
    """
    recipe = run.recipe()
    if test_split is not None:
        return sources.load(dataclasses.replace(_pinned(recipe, run), test_split=test_split))
    if (run / IMAGES).is_file():
        return listed_splits(run / IMAGES, recipe, run.classes())
    splits = sources.load(_pinned(recipe, run))
    if recipe.source.startswith(FOLDER) and any("[" in split.name for split in splits):
        raise UserError(
            f"Expected {IMAGES} in {str(run.path)!r}, which says on which images of {recipe.source!r} the run was "
            "trained; Received: none, since an earlier release made the run, or the file was lost. Name a split "
            "(--split) to evaluate on, or train again."
        )
    return splits


def listed_splits(path: Path, recipe: Recipe, classes: list[str]) -> Splits:
    """The splits of a folder according to a list, without the images that have been removed since.

    A warning tells how many those are, and how many images have come that are in none of the splits.

    Args:
        path: of the list.
        recipe: names the folder.
        classes: names in label order.

    Raises:
        UserError: as `ImageFolder`; another file, or a split whose images have all been removed.
    """
    listed, folder = read_image_list(path), ImageFolder(recipe.source.removeprefix(FOLDER))
    there = [folder.relative(name) for split in folder.info.splits for name, _ in folder.files(split)]
    present, known = set(there), {name for images in listed.digests.values() for name in images}
    if removed := sorted(known - present):
        log.warning("%d images of %s are not in %s any more: %s", len(removed), path, folder.root, examples_of(removed))
    if added := [name for name in there if name not in known]:
        log.warning(
            "%d images in %s are newer than %s and left out: %s", len(added), folder.root, path, examples_of(added)
        )
    files = {split: [name for name in images if name in present] for split, images in listed.digests.items()}
    for split in Splits._fields:
        if not files.get(split):
            raise UserError(
                f"Expected the images of {path} in {str(folder.root)!r}; Received: a folder with none of its {split} "
                "images."
            )
    return _splits_of_files(folder.root, files, classes)


def write_images(path: Path, splits: Splits, scans: Mapping[str, Scan]) -> None:
    """Writes a list of the images in each split, where the source is a folder."""
    folder = splits.train.builder
    if isinstance(folder, ImageFolder):
        digests: dict[str, dict[str, int | None]] = {}
        for field, split in splits._asdict().items():
            known = dict(zip(scans[field].names, scans[field].contents.tolist(), strict=True))
            digests[field] = {folder.relative(name): known.get(name) for name in split.names()}
        ImageList(digests).write(path)


def describe_dataset(splits: Splits, scans: Mapping[str, Scan]) -> dict[str, Any]:
    """Name and version of the dataset and a digest of the readable images of each split, for `metrics.json`."""
    digests = {field: found.digest for field, found in scans.items()}
    return {"name": splits.train.builder.info.full_name, "digests": digests}


def warn_of_changes(run: RunFolder, test: Split, found: Scan) -> None:
    """Warns where images of a run's test split, as a scan found them, are others than those it was tested on."""
    folder = test.builder
    if (run / IMAGES).is_file() and isinstance(folder, ImageFolder):
        digests = read_image_list(run / IMAGES).digests["test"]
        now = {folder.relative(name): digest for name, digest in zip(found.names, found.contents.tolist(), strict=True)}
        if changed := [name for name, digest in now.items() if digests.get(name) != digest]:
            log.warning("%d test images of %s have changed: %s", len(changed), run.path, examples_of(changed))
    elif (known := _dataset(run)) and known["digests"]["test"] != found.digest:
        log.warning("the test images of %s are others than those of %s", known["name"], run.path)


def common_images(runs: Sequence[RunFolder], tests: Sequence[Split]) -> Split:
    """The images that are in the test split of all runs, which so none of them was trained on.

    Args:
        runs: of the same source and classes.
        tests: their test splits.

    Raises:
        UserError: there is none.
    """
    folder = tests[0].builder
    if not isinstance(folder, ImageFolder):
        return tests[0]
    names = [[folder.relative(name) for name in test.names()] for test in tests]
    common = set(names[0]).intersection(*names[1:])
    if not common:
        raise UserError(
            f"Expected runs whose test splits share images; Received: {', '.join(str(run.path) for run in runs)}, "
            "which have none in common."
        )
    if others := sorted(set().union(*names) - common):
        log.warning("%d images are not in the test split of all runs: %s", len(others), examples_of(others))
    files = {"test": [name for name in names[0] if name in common]}
    return Split(ImageFolder(folder.root, files, tests[0].classes), "test") if others else tests[0]


def _like(parent: ImageList, splits: Splits, recipe: Recipe) -> Splits:
    """The splits, with the images that another run had in the splits that they had there."""
    folder, before = splits.train.builder, parent.splits()
    assert isinstance(folder, ImageFolder)
    files: dict[str, list[str]] = {field: [] for field in Splits._fields}
    moved = []
    for field, split in splits._asdict().items():
        for path, digest in folder.digests(split.name).items():
            owner = before.get(digest, field)
            files[owner].append(folder.relative(path))
            moved += [folder.relative(path)] if owner != field else []
    if not moved:
        return splits
    if recipe.train_split or recipe.validation_split or recipe.test_split:
        log.warning(
            "%d images are in other splits than those of the run whose weights this one starts from, so that numbers "
            "may be too good: %s",
            len(moved),
            examples_of(moved),
        )
        return splits
    return _splits_of_files(folder.root, files, splits.train.classes)


def _splits_of_files(root: Path, files: Mapping[str, Iterable[str]], classes: list[str]) -> Splits:
    folder = ImageFolder(root, files, classes)
    return Splits(*(Split(folder, field) for field in Splits._fields))


def _pinned(recipe: Recipe, run: RunFolder) -> Recipe:
    """The recipe with the version of the dataset that a run was trained on."""
    name, _, version = (_dataset(run) or {"name": ""})["name"].rpartition("/")
    return dataclasses.replace(recipe, source=f"{name}:{version}") if name == recipe.source else recipe


def _dataset(run: RunFolder) -> dict[str, Any] | None:
    """What `describe_dataset` wrote; earlier releases did not."""
    return run.metrics().get("dataset") if (run / METRICS).is_file() else None

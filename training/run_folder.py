"""The folder that a run leaves behind: what is in it, and who may write to it."""

import contextlib
import csv
import dataclasses
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import keras
import numpy as np

from inception_v1 import GoogLeNet, Spec
from inception_v1.atomic_files import write_json, write_text
from inception_v1.spec import check_class_names, read_class_names, read_spec
from training.errors import UserError
from training.presets import read_recipe
from training.recipe import Recipe

RECIPE, SPEC, CLASSES, IMAGES, METRICS = "recipe.json", "spec.json", "classes.txt", "images.csv", "metrics.json"
HISTORY, TENSORBOARD, REPORT = "history.csv", "tensorboard", "report"
BEST, RAW, LOCK = "best.keras", "raw.keras", ".lock"
STATE, PREVIOUS_STATE = "state.npz", "state.previous.npz"
UNFINISHED = ".*.part*"  # files that were being written when a process was killed
STRUCTURE = ("widths", "stem_widths", "reduction", "lrn", "dropout")  # what a spec decides beyond what recipes do

# What can still be done without a file.
REMEDIES = {
    RECIPE: f"The network alone can still be used: give {BEST} itself to predict, export or train --weights",
    SPEC: "The run cannot be resumed, but its best model can be used",
    CLASSES: f"{BEST} has the names too: give it itself to predict or export, or write the file anew, one name a line",
    METRICS: "The numbers of the test split can be computed anew by evaluate",
    HISTORY: f"The numbers of its epochs are lost, but its best model, {BEST}, can be used",
    BEST: "Train again (--overwrite) to have the model",
}


class RunFolder:
    """One run's folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def check_usable(self, recipe: Recipe, spec: Spec, overwrite: bool, replicas: int) -> bool:
        """Whether the folder holds an interrupted run of this recipe that can be resumed.

        Args:
            recipe: of the run to come.
            spec: its network, whatever the images and classes.
            overwrite: whether any other run may be replaced.
            replicas: that will share its steps.

        Raises:
            UserError: a run may not go there: a file, a folder in use, a finished run, one with another recipe,
                network or number of replicas, or one that another process is working on.
        """
        if not self.path.exists():
            return False
        if not self.path.is_dir():
            raise UserError(f"Expected a folder for the run; Received: {str(self.path)!r}, which is a file.")
        if all(path.name == LOCK or path.match(UNFINISHED) for path in self.path.iterdir()):
            return False  # empty, or a run ended before it wrote anything
        expected = "Expected a new folder (or --overwrite)"
        if not (self / RECIPE).is_file():
            raise UserError(f"{expected}; Received: {str(self.path)!r}, which holds no {RECIPE} and is left alone.")
        if overwrite:
            return False
        if (self / METRICS).is_file() and self.metrics()["status"] == "finished":
            raise UserError(f"{expected}; Received: {str(self.path)!r}, which holds a finished run.")
        own, wanted = dataclasses.asdict(self.recipe()), dataclasses.asdict(recipe)
        if other := [f"{name} {own[name]!r}, not {wanted[name]!r}" for name in own if own[name] != wanted[name]]:
            raise UserError(f"{expected}; Received: {str(self.path)!r}, a run with {', '.join(other)}.")
        if not self.states():
            return False
        with _reading(self / SPEC):
            stored = read_spec(self / SPEC)
        own = {name: getattr(stored, name) for name in STRUCTURE}
        if other := [
            f"{name} {value!r}, not {getattr(spec, name)!r}"
            for name, value in own.items()
            if value != getattr(spec, name)
        ]:
            raise UserError(f"{expected}; Received: {str(self.path)!r}, a run with {', '.join(other)}.")
        if (before := self.metrics().get("replicas", 1)) != replicas:  # old runs did not record it: there was one
            raise UserError(f"{expected}; Received: {str(self.path)!r}, a run on {before} replicas, not {replicas}.")
        if (self / HISTORY).is_file():  # an epoch has ended, so that there is a best model
            self._check_model()
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, without what a killed process was writing there, and keeps other processes out of it; the
        lock ends with this process, however it ends.

        Raises:
            UserError: another process has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(self / LOCK), timeout=0)
        try:
            with lock:
                for path in self.path.glob(UNFINISHED):
                    path.unlink()
                yield
        except filelock.Timeout:
            raise UserError(f"Expected a folder that no run is using; Received: {str(self.path)!r}.") from None

    def create(self, recipe: Recipe, spec: Spec, classes: list[str]) -> None:
        """Makes or empties the folder and writes what is known before training.

        The recipe, without which a folder is no run's, is replaced last: a process that is killed here leaves a run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in (LOCK, RECIPE):
                path.unlink()
        write_json(self / RECIPE, dataclasses.asdict(recipe))
        write_json(self / SPEC, spec.to_dict())
        write_text(self / CLASSES, "".join(f"{name}\n" for name in classes))

    def states(self) -> list[Path]:
        """The files of the states to resume from, the newest first."""
        return [path for path in (self / STATE, self / PREVIOUS_STATE) if path.is_file()]

    def recipe(self) -> Recipe:
        """The recipe of the run."""
        self._check_is_run()
        with _reading(self / RECIPE):
            return read_recipe(self / RECIPE)

    def classes(self) -> list[str]:
        """Class names in label order."""
        self._check_is_run()
        with _reading(self / CLASSES):
            names = read_class_names(self / CLASSES)
            return list(check_class_names(names, read_spec(self / SPEC).classes)) if (self / SPEC).is_file() else names

    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds, with "status", "epochs" and "seconds" in any case."""
        self._check_is_run()
        with _reading(self / METRICS):
            return {"status": "running", "epochs": 0, "seconds": 0.0, **json.loads((self / METRICS).read_text("utf-8"))}

    def model(self) -> GoogLeNet:
        """The best model, not compiled."""
        self.check_trained()
        self._check_model()
        return keras.saving.load_model(self / BEST, compile=False)

    def check_trained(self) -> None:
        """Raises UserError where there is no run, or no model yet."""
        self._check_is_run()
        if not (self / BEST).is_file():
            raise UserError(
                f"Expected a run with a trained model; Received: {str(self.path)!r}, which has no {BEST}: no epoch has "
                "finished yet, or the file was removed."
            )

    def _check_model(self) -> None:
        """Raises UserError unless the best model's file is whole."""
        with _reading(self / BEST), zipfile.ZipFile(self / BEST) as archive:
            if bad := archive.testzip():
                raise zipfile.BadZipFile(f"{bad} is not as it was written")

    def _check_is_run(self) -> None:
        if not (self / RECIPE).is_file():
            raise UserError(
                f"Expected the folder of a run; Received: {str(self.path)!r}, which holds no {RECIPE}."
                + (f" {REMEDIES[RECIPE]}." if (self / BEST).is_file() else "")
            )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says which file of a run is missing or damaged, and what can still be done. Nothing but the reading is in it."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:  # of JSON and UTF-8: ValueErrors
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        what = f"which is damaged ({reason})" if path.is_file() else "which is missing"
        raise UserError(
            f"Expected the {path.name} of a run; Received: {str(path)!r}, {what}. {REMEDIES[path.name]}."
        ) from error


def read_history(path: Path) -> dict[str, np.ndarray]:
    """Columns of a `history.csv`. A network with one head logs its loss as "loss" alone: it is "main_loss" here.

    Raises:
        UserError: no such file, or a damaged one.
    """
    with _reading(path):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        if not rows:
            raise ValueError("no epoch is in it")
        history = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
        for prefix in ("", "val_"):
            if f"{prefix}loss" in history:  # a slice of shared weights has validation alone
                history.setdefault(f"{prefix}main_loss", history[f"{prefix}loss"])
    return history

"""The folder that a run leaves behind: what lies in it, and how each file gets there whole."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from inception_v1 import GoogLeNet, Spec
from training import recipe as recipes
from training.recipe import Recipe

RECIPE, SPEC, CLASSES, METRICS = "recipe.json", "spec.json", "classes.txt", "metrics.json"
HISTORY, BEST, TENSORBOARD, REPORT = "history.csv", "best.keras", "tensorboard", "report"


class RunFolder:
    """One run's folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def check_free(self, overwrite: bool) -> None:
        """Raises ValueError where a new run may not go: a folder in use, a file, or not a run's to overwrite."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(f"Expected a folder for the run; Received: {str(self.path)!r}, which is a file.")
        if any(self.path.iterdir()):
            if not overwrite:
                raise ValueError(f"Expected a new folder (or --overwrite); Received: {str(self.path)!r}, which exists.")
            if not (self / RECIPE).is_file():
                raise ValueError(
                    f"Expected to overwrite a run; Received: {str(self.path)!r}, "
                    f"which holds no {RECIPE} and is left alone."
                )

    def create(self, recipe: Recipe, spec: Spec, classes: list[str]) -> None:
        """Makes the folder anew, with what is known before training."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        write_json(self / RECIPE, dataclasses.asdict(recipe))
        write_json(self / SPEC, spec.to_dict())
        write_text(self / CLASSES, "".join(f"{name}\n" for name in classes))

    def recipe(self) -> Recipe:
        """The recipe of the run. Raises ValueError where there is none."""
        self._check_is_run()
        return recipes.read(self / RECIPE)

    def classes(self) -> list[str]:
        """Class names in label order."""
        self._check_is_run()
        return (self / CLASSES).read_text("utf-8").splitlines()

    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` says."""
        self._check_is_run()
        return json.loads((self / METRICS).read_text("utf-8"))

    def model(self) -> GoogLeNet:
        """The best model, not compiled. Raises ValueError where no epoch has finished yet."""
        self.check_trained()
        return keras.saving.load_model(self / BEST, compile=False)

    def check_trained(self) -> None:
        """Raises ValueError where there is no run, or no epoch has finished yet."""
        self._check_is_run()
        if not (self / BEST).is_file():
            raise ValueError(
                f"Expected a run with a trained model; Received: {str(self.path)!r}, which has no {BEST} yet."
            )

    def _check_is_run(self) -> None:
        if not (self / RECIPE).is_file():
            raise ValueError(f"Expected the folder of a run; Received: {str(self.path)!r}, which holds no {RECIPE}.")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON beside `path`, then renames it there."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text beside `path`, then renames it there."""
    with written_whole(path) as part:
        part.write_text(text, "utf-8")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to and renames it there at the end; an error leaves nothing half-written."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)

"""The folder that a run leaves behind: what lies in it, and how each file gets there whole."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import keras

from inception_v1 import GoogLeNet, Spec
from inception_v1.atomic_files import written_whole
from inception_v1.spec import read_spec
from training import recipe as recipes
from training.recipe import Recipe

RECIPE, SPEC, CLASSES, METRICS = "recipe.json", "spec.json", "classes.txt", "metrics.json"
HISTORY, TENSORBOARD, REPORT = "history.csv", "tensorboard", "report"
BEST, RAW, STATE, LOCK = "best.keras", "raw.keras", "state.npz", ".lock"
STRUCTURE = ("widths", "reduction", "lrn", "dropout")  # what a given network decides beyond what recipes say


class RunFolder:
    """One run's folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def check_usable(self, recipe: Recipe, overwrite: bool, replicas: int, given: Spec | None = None) -> bool:
        """Whether the folder holds a run of this recipe that broke off and can go on.

        Args:
            recipe: of the run to come.
            overwrite: whether any other run may go.
            replicas: that will share its steps.
            given: a network in place of the recipe's.

        Raises:
            ValueError: a run may not go there: a file, a folder in use, a finished run, one with another recipe,
                network or number of replicas, or one that another process is working on.
        """
        if not self.path.exists():
            return False
        if not self.path.is_dir():
            raise ValueError(f"Expected a folder for the run; Received: {str(self.path)!r}, which is a file.")
        if all(path.name == LOCK for path in self.path.iterdir()):  # empty, or a run ended before it wrote anything
            return False
        expected = "Expected a new folder (or --overwrite)"
        if not (self / RECIPE).is_file():
            raise ValueError(f"{expected}; Received: {str(self.path)!r}, which holds no {RECIPE} and is left alone.")
        if overwrite:
            return False
        if (self / METRICS).is_file() and self.metrics()["status"] == "finished":
            raise ValueError(f"{expected}; Received: {str(self.path)!r}, which holds a finished run.")
        own, wanted = dataclasses.asdict(self.recipe()), dataclasses.asdict(recipe)
        if other := [f"{name} {own[name]!r}, not {wanted[name]!r}" for name in own if own[name] != wanted[name]]:
            raise ValueError(f"{expected}; Received: {str(self.path)!r}, a run with {', '.join(other)}.")
        if not (self / STATE).is_file():
            return False
        wanted = given or recipes.network(recipe, 1, 1)
        own = {name: getattr(read_spec(self / SPEC), name) for name in STRUCTURE}
        if other := [
            f"{name} {value!r}, not {getattr(wanted, name)!r}"
            for name, value in own.items()
            if value != getattr(wanted, name)
        ]:
            raise ValueError(f"{expected}; Received: {str(self.path)!r}, a run with {', '.join(other)}.")
        if (before := self.metrics().get("replicas", 1)) != replicas:  # runs of old had one and did not say
            raise ValueError(f"{expected}; Received: {str(self.path)!r}, a run on {before} replicas, not {replicas}.")
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps other processes out of it; the lock ends with this process, however it ends.

        Raises:
            ValueError: another process has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self / LOCK, timeout=0)
        try:
            with lock:
                yield
        except filelock.Timeout:
            raise ValueError(f"Expected a folder that no run is using; Received: {str(self.path)!r}.") from None

    def create(self, recipe: Recipe, spec: Spec, classes: list[str]) -> None:
        """Makes or empties the folder and writes what is known before training."""
        self.path.mkdir(parents=True, exist_ok=True)
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
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

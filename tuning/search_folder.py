"""The folder of a search: which search it is, who works on it, and what it holds."""

import contextlib
import dataclasses
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras_tuner as kt

from inception_v1.atomic_files import write_json
from inception_v1.spec import Spec, Widths, check_choice
from training import run_folder
from training.data.sources import Splits
from training.errors import UserError
from training.recipe import Recipe
from training.report.page import is_older
from training.run_folder import RunFolder, read_history
from training.run_images import listed_splits, write_images
from training.task import RecipeTask
from tuning import results
from tuning.budget import Budget
from tuning.keras_tuner_patches import read_trials
from tuning.latency_table import LatencyTable
from tuning.report import write
from tuning.results import FAILED, SEARCH, Results
from tuning.search_latency import kept_table
from tuning.shared_settings import FREE
from tuning.shared_trials import ALONE
from tuning.space import MULTIPLIERS, Space
from tuning.trials import IDLE, RUN, TRIALS, best_epoch, is_finished

LONGEST_WAIT = 3600  # seconds for the chief to begin, as Keras Tuner waits for it later
RENAMED = {"normalisation": "normalization"}  # dimensions that earlier releases wrote in British spelling

log = logging.getLogger(__name__)


def read_search(folder: str | os.PathLike[str]) -> Results:
    """What a search's folder holds. Raises UserError where there is none."""
    home = Path(folder)
    if not (home / SEARCH).is_file():
        raise UserError(f"Expected the folder of a search; Received: {str(home)!r}, which holds no {SEARCH}.")
    about = json.loads((home / SEARCH).read_text("utf-8"))
    settings = about["settings"]
    if renamed := [name for name in settings["also"] if name in RENAMED]:
        log.warning("%s calls %s what is now %s", home / SEARCH, renamed[0], RENAMED[renamed[0]])
        settings["also"] = [RENAMED.get(name, name) for name in settings["also"]]
    space = make_space(settings, Spec(**about["network"]), Recipe(**about["recipe"]), kept_table(home))
    objective = make_objective(settings["objective"], space)
    trials = [
        _record(trial, space, objective, home / TRIALS / f"trial_{trial.trial_id}")
        for trial in read_trials(home / TRIALS)
    ]
    alone = _scores_alone(home, trials, objective, space)
    return Results(settings, objective.name, objective.direction, tuple(trials), alone)


def updated_search_page(folder: str | os.PathLike[str]) -> Path:
    """The page of a search, written anew where there is none or where a trial has ended since.

    Raises:
        UserError: no search.
    """
    home = Path(folder)
    page = home / write.REPORT / write.PAGE
    if any(is_older(page, trial) for trial in [home / SEARCH, *(home / TRIALS).glob("trial_*/trial.json")]):
        write.write_search_report(home, read_search(home))
    return page


def make_space(settings: dict[str, Any], start: Spec, recipe: Recipe, latency: LatencyTable | None = None) -> Space:
    """The space that the settings of a search describe."""
    budget = Budget(*(settings.get(field.name) for field in dataclasses.fields(Budget)))  # earlier releases had fewer
    proposal = {block: Widths(*numbers) for block, numbers in (settings.get("proposal") or {}).items()} or None
    also, grid = tuple(settings["also"]), settings["tuner"] == "grid"
    multipliers, stem = tuple(settings.get("multipliers", MULTIPLIERS)), settings.get("stem", False)
    return Space(settings["space"], start, recipe, also, budget, grid, proposal, multipliers, stem, latency)


def make_objective(name: str | None, space: Space) -> kt.Objective:
    """The objective of that name with its direction; see `search.search`. Raises UserError where there is none."""
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


def kept_splits(home: Path, recipe: Recipe) -> Splits | None:
    """The splits of a search that is resumed or joined, where its source is a folder of images; else None."""
    if not (home / SEARCH).is_file() or not (home / run_folder.IMAGES).is_file():
        return None
    classes = json.loads((home / SEARCH).read_text("utf-8"))["network"]["class_names"]
    return listed_splits(home / run_folder.IMAGES, recipe, classes)


def keep_images(home: Path, task: RecipeTask) -> None:
    """Writes which images all trials of a search train on, where its source is a folder and no process has done so."""
    if not (home / run_folder.IMAGES).is_file():
        write_images(home / run_folder.IMAGES, task.splits, task.scans)


@contextlib.contextmanager
def claimed(home: Path, about: dict[str, Any]) -> Iterator[None]:
    """Keeps a folder for a search while it lasts, and writes down which search it is.

    Raises:
        UserError: a file, another search's folder, or one that another process works on.
    """
    _check_same(home, about)
    with RunFolder(home).locked():
        write_json(home / SEARCH, about)
        yield


@contextlib.contextmanager
def joined(home: Path, about: dict[str, Any]) -> Iterator[None]:
    """Waits until the chief has claimed the folder; raises UserError where it is for another search, or never does."""
    end = time.monotonic() + LONGEST_WAIT
    while not (home / SEARCH).is_file():
        if time.monotonic() > end:
            raise UserError(
                f"Expected the chief to begin the search within {LONGEST_WAIT} s; Received: nothing in {home}."
            )
        time.sleep(IDLE)
    _check_same(home, about)
    yield


def _check_same(home: Path, about: dict[str, Any]) -> None:
    expected = "Expected a new folder for the search"
    if home.exists() and not home.is_dir():
        raise UserError(f"{expected}; Received: {str(home)!r}, which is a file.")
    if not home.exists() or all(path.name == run_folder.LOCK for path in home.iterdir()):
        return
    if not (home / SEARCH).is_file():
        raise UserError(f"{expected}; Received: {str(home)!r}, which holds no {SEARCH} and is left alone.")
    before = json.loads((home / SEARCH).read_text("utf-8"))
    free = ("trials", "max_failures", *FREE)
    differ = [
        f"{name} {before[part].get(name)!r}, not {value!r}"
        for part in about
        for name, value in _with_settings_of(before, about, part).items()
        if before[part].get(name) != value and name not in free
    ]
    if differ:
        raise UserError(f"{expected}; Received: {str(home)!r}, a search with {', '.join(differ)}.")


def _scores_alone(
    home: Path, trials: Sequence[results.Trial], objective: kt.Objective, space: Space
) -> dict[int, float]:
    """The objective of the trials on shared weights that were trained alone too, by their number."""
    found = {}
    for trial in trials:
        run = RunFolder(home / ALONE / f"trial_{trial.number}")
        if is_finished(run):
            history = read_history(run / run_folder.HISTORY)
            found[trial.number] = best_epoch(history, objective, trial.macs, space)[0]
    return found


def _with_settings_of(before: dict[str, Any], about: dict[str, Any], part: str) -> dict[str, Any]:
    """A part of what distinguishes a search, with None for settings that only the search before has."""
    return dict.fromkeys(before[part] if part == "settings" else ()) | about[part]


def _record(trial: Any, space: Space, objective: kt.Objective, folder: Path) -> results.Trial:
    values = {RENAMED.get(name, name): value for name, value in trial.hyperparameters.values.items()}
    values = space.exact(values)
    params, macs = space.cost(values)
    score: float | None = None
    metrics: dict[str, float] = {}
    epochs, seconds = 0, 0.0
    if (folder / RUN / run_folder.HISTORY).is_file():
        history = read_history(folder / RUN / run_folder.HISTORY)
        score, metrics = best_epoch(history, objective, macs, space)
        epochs = len(history["epoch"])
    if (folder / RUN / run_folder.METRICS).is_file():
        ended = RunFolder(folder / RUN).metrics()
        seconds = ended["seconds"]
        epochs = 0 if ended.get("slice") else epochs  # of shared weights, which no trial trains
    return results.Trial(
        number=int(trial.trial_id),
        status=trial.status,
        values=values,
        spec=space.network(values),
        recipe=space.recipe_of(values),
        params=params,
        macs=macs,
        latency=space.seconds(values),
        score=score if trial.status == results.COMPLETED else None,
        metrics=metrics,
        epochs=epochs,
        seconds=seconds,
        message=(trial.message or "") if trial.status == FAILED else "",
    )

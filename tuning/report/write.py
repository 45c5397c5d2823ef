"""The files that a search leaves behind: its trials, the best network, figures, a page, and logs for TensorBoard."""

import csv
import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api

from inception_v1.atomic_files import atomic_file, write_json, write_text
from inception_v1.spec import BLOCKS
from training import run_folder
from training.report.figures import save
from training.report.page import PAGE
from tuning.importance import importance
from tuning.report import figures
from tuning.report.page import CAPTIONS, render_page
from tuning.report.text import join_widths
from tuning.results import Results, Trial, last_line

TRIALS, BEST, FRONT, REPORT, TENSORBOARD = "trials.csv", "best", "front", "report", "tensorboard"
EVENTS = "events.out.tfevents.hparams"


def write_search_report(folder: Path, results: Results) -> None:
    """Writes `trials.csv`, `best/` (`spec.json`, `recipe.json`), `report/` (figures, `report.html`), `tensorboard/`.

    A search for a front gets `front/00/`, `front/01/`, ... too, with files like those of `best/`, the cheapest network
    first. Without a completed trial there is no `best/`; what a call before wrote there is removed.

    Args:
        folder: the search's; made if absent.
        results: of the search, which may not have ended.
    """
    found = importance(results)
    drawn = {
        "pareto": figures.pareto(results),
        "widths": figures.widths(results),
        "history": figures.history(results),
        "importance": figures.importance_bars(found),
        "parallel": figures.parallel(results, found),
    }
    if results.pareto:
        drawn["hypervolume"] = figures.hypervolume_growth(results)
    report = folder / REPORT
    report.mkdir(parents=True, exist_ok=True)
    _write_trials(folder / TRIALS, results)
    _write_network(folder / BEST, results.best)
    if results.pareto:
        _write_front(folder / FRONT, results.front)
    for name, figure in drawn.items():
        save(figure, report / f"{name}.png")
    images = {name: (report / f"{name}.png").read_bytes() for name in CAPTIONS if name in drawn}
    write_text(report / PAGE, render_page(folder, results, found, images, _pages(folder)))
    for trial in results.trials:
        hparams(folder / TENSORBOARD / f"trial_{trial.number}", trial)


def _pages(folder: Path) -> dict[int, str]:
    """Number of a trial to its page, relative to that of the search, where there is one."""
    pages = folder.glob(f"trials/trial_*/run/{run_folder.REPORT}/{PAGE}")
    return {
        int(page.parents[2].name.removeprefix("trial_")): Path(os.path.relpath(page, folder / REPORT)).as_posix()
        for page in pages
    }


def _write_trials(path: Path, results: Results) -> None:
    """One row a trial. A dimension or metric with the name of another column is "value.NAME" or "metric.NAME"."""
    values = results.dimensions
    metrics = list(dict.fromkeys(name for trial in results.trials for name in trial.metrics))
    grown = results.hypervolumes if results.pareto else {}
    timed = any(trial.latency is not None for trial in results.trials)
    costs = ("params", "macs", "relative_macs", *(("latency_ms",) if timed else ()), "epochs", "seconds")
    costs += ("hypervolume",) if results.pareto else ()
    fixed = {"number", "status", "score", *costs, "message", *(f"widths_{block}" for block in BLOCKS)}
    with atomic_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            (
                *("number", "status", "score"),
                *(f"value.{name}" if name in fixed else name for name in values),
                *costs,
                *(f"metric.{name}" if name in fixed | set(values) else name for name in metrics),
                *(f"widths_{block}" for block in BLOCKS),
                "message",
            )
        )
        for trial in results.trials:
            widths = trial.spec.block_widths()
            writer.writerow(
                (
                    *(trial.number, trial.status, trial.score),
                    *(trial.values.get(name) for name in values),
                    *(trial.params, trial.macs, results.relative_macs(trial)),
                    *((trial.cost,) if timed else ()),
                    *(trial.epochs, trial.seconds),
                    *((grown.get(trial.number),) if results.pareto else ()),
                    *(trial.metrics.get(name) for name in metrics),
                    *(join_widths(widths[block]) for block in BLOCKS),
                    last_line(trial.message),
                )
            )


def _write_network(folder: Path, trial: Trial | None) -> None:
    """Writes the spec and recipe of a trial. Without one both are removed, and the folder if nothing else is in it."""
    if trial:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / run_folder.SPEC, trial.spec.to_dict())
        write_json(folder / run_folder.RECIPE, dataclasses.asdict(trial.recipe))
        return
    for name in (run_folder.SPEC, run_folder.RECIPE):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _write_front(folder: Path, trials: Sequence[Trial]) -> None:
    """A numbered folder for each trial; those of a longer front before are removed."""
    for number, trial in enumerate(trials):
        _write_network(folder / f"{number:02d}", trial)
    for other in folder.glob("[0-9]*"):
        if other.name.isdigit() and int(other.name) >= len(trials):
            _write_network(other, None)


def hparams(folder: Path, trial: Trial) -> None:
    """Writes a trial's values, score, costs and metrics for the HParams tab of TensorBoard.

    Args:
        folder: of this trial's logs alone; made if absent. What a call before wrote there is replaced.
        trial: finished or not.
    """
    scalars = {"params": trial.params, "macs": trial.macs, "seconds": trial.seconds, **trial.metrics}
    if trial.latency is not None:
        scalars["latency_ms"] = trial.cost
    if trial.score is not None:
        scalars["score"] = trial.score
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".hparams", dir=folder) as beside:
        writer = tf.summary.create_file_writer(beside)
        with writer.as_default(step=0):
            began = int(time.time() - trial.seconds)
            api.hparams(trial.values, trial_id=f"trial {trial.number}", start_time_secs=began)
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
        writer.close()
        (events,) = Path(beside).iterdir()
        events.replace(folder / EVENTS)

"""What a search leaves behind: its trials, the best network, pictures, a page, and logs for TensorBoard."""

import csv
import dataclasses
import datetime
import tempfile
import time
from pathlib import Path

import tensorflow as tf
from rich.markup import escape
from rich.table import Table
from tensorboard.plugins.hparams import api

from inception_v1.atomic_files import written_whole
from inception_v1.spec import BLOCKS
from training import run_folder as runs
from training.report.figures import ShowProgress, save
from tuning.importance import importance
from tuning.reading import dimensions, joined, last_line, paper, relative_macs, short
from tuning.report.page import SENTENCES, page
from tuning.report import figures as pictures
from tuning.results import Results, Standing, Trial

TRIALS, BEST, REPORT, PAGE, TENSORBOARD = "trials.csv", "best", "report", "report.html", "tensorboard"
EVENTS = "events.out.tfevents.hparams"
MOST_VALUES = 6  # of a trial's dimensions on the terminal


def write(folder: Path, results: Results) -> None:
    """Writes `trials.csv`, `best/` (`spec.json`, `recipe.json`), `report/` (pictures, `report.html`), `tensorboard/`.

    Without a completed trial there is no `best/`; what a call before wrote there is removed.

    Args:
        folder: the search's; made if absent.
        results: of the search, which may still go on.
    """
    found = importance(results)
    drawn = {
        "pareto": pictures.pareto(results),
        "widths": pictures.widths(results),
        "history": pictures.history(results),
        "importance": pictures.importance_bars(found),
        "parallel": pictures.parallel(results, found),
    }
    report = folder / REPORT
    report.mkdir(parents=True, exist_ok=True)
    _write_trials(folder / TRIALS, results)
    _write_best(folder / BEST, results)
    for name, figure in drawn.items():
        save(figure, report / f"{name}.png")
    images = {name: (report / f"{name}.png").read_bytes() for name in SENTENCES}
    runs.write_text(report / PAGE, page(folder, results, found, images))
    for trial in results.trials:
        hparams(folder / TENSORBOARD / f"trial_{trial.number}", trial)


def _write_trials(path: Path, results: Results) -> None:
    """One row a trial. A dimension or metric with the name of another column is "value.NAME" or "metric.NAME"."""
    values = dimensions(results)
    metrics = list(dict.fromkeys(name for trial in results.trials for name in trial.metrics))
    costs = ("params", "macs", "relative_macs", "epochs", "seconds")
    fixed = {"number", "status", "score", *costs, "message", *(f"widths_{block}" for block in BLOCKS)}
    with written_whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
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
                    *(trial.params, trial.macs, relative_macs(trial, results), trial.epochs, trial.seconds),
                    *(trial.metrics.get(name) for name in metrics),
                    *(joined(widths[block]) for block in BLOCKS),
                    last_line(trial.message),
                )
            )


def _write_best(folder: Path, results: Results) -> None:
    """Writes the spec and recipe of the best trial. Without one both go, and the folder if nothing else is in it."""
    if trials := results.ranked:
        folder.mkdir(exist_ok=True)
        runs.write_json(folder / runs.SPEC, trials[0].spec.to_dict())
        runs.write_json(folder / runs.RECIPE, dataclasses.asdict(trials[0].recipe))
        return
    for name in (runs.SPEC, runs.RECIPE):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def hparams(folder: Path, trial: Trial) -> None:
    """Writes a trial's values, score, costs and metrics for the HParams tab of TensorBoard.

    Args:
        folder: of this trial's logs alone; made if absent. What a call before wrote there is replaced.
        trial: finished or not.
    """
    scalars = {"params": trial.params, "macs": trial.macs, "seconds": trial.seconds, **trial.metrics}
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


def line(standing: Standing) -> str:
    """A trial that ended, the best one so far and the time that is left, in one line."""
    trial, best, (params, macs) = standing.trial, standing.best, standing.cost
    total = "" if standing.trials is None else f"/{standing.trials}"
    parts = [f"{standing.ended}{total}  trial {int(trial.trial_id)}"]
    if trial.score is None:
        parts.append(f"failed: {last_line(trial.message or '')}")
    else:
        parts.append(f"{standing.objective} {trial.score:.4f}")
    if best is not None:
        parts.append(f"best {best.score:.4f} (trial {int(best.trial_id)})")
    parts.append(f"parameters {params:.2f}x  MACs {macs:.2f}x")
    if standing.seconds_left:
        parts.append(f"about {datetime.timedelta(seconds=round(standing.seconds_left))} left")
    return "  ".join(parts)


class Steps(ShowProgress):
    """A bar over the steps of a trial, which goes when the trial ends."""

    def on_epoch_end(self, epoch, logs=None):
        pass


def table(results: Results, top: int = 5) -> Table:
    """The best trials for the terminal, and trial 0 below them where it is not among them.

    Args:
        results: of the search.
        top: how many, at most.
    """
    trials, first = results.ranked, paper(results)
    title = (
        f"{len(trials)} of {len(results.trials)} trials completed; best by {results.objective} ({results.direction})"
    )
    shown = Table(title=escape(title), caption="MACs: beside trial 0, which has the paper's widths")
    for head in ("trial", "score", "values", "params", "MACs", "seconds"):
        shown.add_column(head, justify="left" if head == "values" else "right", overflow="fold")
    for trial in trials[:top]:
        shown.add_row(*_cells(trial, results))
    if first is not None and first not in trials[:top]:
        shown.add_section()
        shown.add_row(*_cells(first, results))
    return shown


def _cells(trial: Trial, results: Results) -> tuple[str, ...]:
    score = trial.status.lower() if trial.score is None else f"{trial.score:.4f}"
    ratio = relative_macs(trial, results)
    values = [f"{name}={short(value)}" for name, value in trial.values.items()]
    if len(values) > MOST_VALUES:
        values[MOST_VALUES - 1 :] = [f"and {len(values) - MOST_VALUES + 1} more"]
    return (
        str(trial.number),
        score,
        escape("  ".join(values)),
        f"{trial.params:,}",
        "" if ratio is None else f"{ratio:.2f}x",
        f"{trial.seconds:,.0f}",
    )

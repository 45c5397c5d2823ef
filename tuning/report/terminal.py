"""A search on the terminal: a line for each trial, and the table of the best."""

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from training.report.progress import ShowProgress
from tuning.latency_table import LatencyTable
from tuning.rank_correlation import check_ranks
from tuning.report.slimming import networks_table
from tuning.report.text import shorten
from tuning.results import Results, Standing, Trial, last_line

MOST_VALUES = 6  # of a trial's dimensions


def trial_line(standing: Standing) -> str:
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
    if standing.latency is not None:
        parts.append(f"{1000 * standing.latency:.3g} ms")
    if standing.seconds_left:
        parts.append(f"about {datetime.timedelta(seconds=round(standing.seconds_left))} left")
    return "  ".join(parts)


class ShowSteps(ShowProgress):
    """A progress bar over the steps of a trial, removed when the trial ends."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        pass


def best_table(results: Results, top: int = 5) -> Table:
    """The best trials for the terminal, and trial 0 below them where it is not among them.

    Args:
        results: of the search.
        top: how many, at most.
    """
    trials, first = results.ranked, results.baseline
    title = (
        f"{len(trials)} of {len(results.trials)} trials completed; best by {results.objective} ({results.direction})"
    )
    shown = Table(title=escape(title), caption="MACs: beside trial 0, which has the paper's widths")
    timed = [trial for trial in results.trials if trial.latency is not None]
    for head in ("trial", "score", "values", "params", "MACs", *(("ms",) if timed else ()), "seconds"):
        shown.add_column(head, justify="left" if head == "values" else "right", overflow="fold")
    for trial in trials[:top]:
        shown.add_row(*_cells(trial, results))
    if first is not None and first not in trials[:top]:
        shown.add_section()
        shown.add_row(*_cells(first, results))
    return shown


def alone_table(results: Results) -> Table:
    """The trials on shared weights that were trained alone, best first, and the rank correlation below them."""
    correlation = check_ranks(results).correlation
    shown = Table(title="trained alone", caption=correlation and f"Spearman's correlation: {correlation}")
    for head in ("trial", "trained alone", "on shared weights", "MACs"):
        shown.add_column(head, justify="right")
    for trial in results.ranked_alone:
        cells = (str(trial.number), f"{results.alone[trial.number]:.4f}", f"{trial.score:.4f}", f"{trial.macs:,}")
        shown.add_row(*cells)
    return shown


def latency_table(found: LatencyTable) -> Table:
    """What a latency table was measured with, and how far off its sums are."""
    threads = found.about["threads"] or "its own number of"
    shown = Table(title=f"{found.about['runtime']}, {threads} threads, batch {found.batch}, {found.about['cpu']}")
    shown.add_column("networks timed as a whole")
    shown.add_column(str(len(found.checks)), justify="right")
    if found.checks:
        errors, measured = np.abs(found.errors), [1000 * check.measured for check in found.checks]
        shown.add_row("milliseconds", f"{min(measured):.3g} to {max(measured):.3g}")
        shown.add_row("mean difference of the table's sums", f"{errors.mean():.1%}")
        shown.add_row("largest difference", f"{errors.max():.1%}")
    return shown


def slimming_table(result: Mapping[str, Any]) -> Table:
    """Costs, accuracy and latency of a network before and after it was slimmed, from what `slim` returns."""
    data = networks_table(result["networks"])
    shown = Table(*data.heads)
    for row in data.rows:
        shown.add_row(*map(str, row))
    for column in shown.columns[1:]:
        column.justify = "right"
    return shown


def _cells(trial: Trial, results: Results) -> tuple[str, ...]:
    score = trial.status.lower() if trial.score is None else f"{trial.score:.4f}"
    ratio = results.relative_macs(trial)
    values = [f"{name}={shorten(value)}" for name, value in trial.values.items()]
    if len(values) > MOST_VALUES:
        values[MOST_VALUES - 1 :] = [f"and {len(values) - MOST_VALUES + 1} more"]
    return (
        str(trial.number),
        score,
        escape("  ".join(values)),
        f"{trial.params:,}",
        "" if ratio is None else f"{ratio:.2f}x",
        *(() if trial.latency is None else (f"{1000 * trial.latency:.3g}",)),
        f"{trial.seconds:,.0f}",
    )

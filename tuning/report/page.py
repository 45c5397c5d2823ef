"""The page of a search: settings, best network, figures and trials in one HTML file that needs nothing else."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from training.report.page import EmbeddedFigure, Table, embed, render
from tuning.importance import Importance
from tuning.report.figures import shown_dimensions
from tuning.report.shared import shared_section
from tuning.report.text import join_widths, shorten
from tuning.results import COMPLETED, FAILED, Results, Trial, encodable, last_line

TEMPLATE = Path(__file__).with_name("page.html.jinja")
# How to read each figure, in the order in which the page shows them.
CAPTIONS = {
    "pareto": "Each dot is a network: the higher its score and the further left it lies, the better; none "
    "beats those on the line at their cost.",
    "widths": "For each block, the channels of the paper's network on the left and of the best one on the right.",
    "history": "Each dot is a trial in the order of the search; the red line is the best score reached by then. "
    "Where it still moves, more trials may help.",
    "hypervolume": "The area between the front and a reference after each trial: how good the front is, as one number. "
    "The reference is the largest cost of all trials and the worst score that is not far worse than the rest; costs "
    "count as fractions of the largest. Where the line still rises, more trials may help.",
    "importance": "The longer the bar, the more the score depends on that dimension, as far as a model can tell of "
    "trials that it has not seen; whiskers are one standard deviation, and a trial that went far worse than the rest "
    "counts as the worst of them.",
    "parallel": "Each line is a trial and meets each axis at that dimension's value; where dark lines meet lies a good "
    "value, and the red line is the best.",
}
TO_MINIMIZE = {"pareto": ("the higher its score", "the lower its score")}


def render_page(
    folder: Path, results: Results, found: Importance, figures: Mapping[str, bytes], pages: Mapping[int, str]
) -> str:
    """The page as HTML. The template escapes every text that comes from the search.

    Args:
        folder: the search's, for the command that trains the best network.
        results: of the search.
        found: what `importance` returns for them.
        figures: PNG files, by the names of `CAPTIONS`.
        pages: number of a trial to its page, relative to this one.
    """
    states = [trial.status for trial in results.trials]
    others = len(states) - states.count(COMPLETED) - states.count(FAILED)
    counts = f"{states.count(COMPLETED)} trials completed, {states.count(FAILED)} failed, {others} not finished."
    aim = "highest" if results.direction == "max" else "lowest"
    aimed = (
        f"the front of the {aim} {results.objective} and the lowest cost"
        if results.pareto
        else f"the {aim} {results.objective}"
    )
    failed = [trial for trial in results.trials if trial.status == FAILED]
    spec, recipe = (shlex.quote(str(folder / "best" / name)) for name in ("spec.json", "recipe.json"))
    failures = {row: pages[trial.number] for row, trial in enumerate(failed) if trial.number in pages}
    return render(
        TEMPLATE,
        title="Search for the widths of GoogLeNet's branches",
        lead=f"{counts} The search looks for {aimed}.",
        best=_compare(results.best, results.baseline, results.alone) if results.best else None,
        command=f"googlenet train --spec {spec} --recipe {recipe}",
        figures=[_figure(name, results.direction, png) for name, png in figures.items()] if results.ranked else [],
        trials=_trials(results, found, pages) if results.ranked else None,
        hidden=_hidden(results, found),
        shared=shared_section(results),
        front=_front(results) if results.pareto and results.ranked else None,
        failed=Table(
            ("trial", "message"), [(trial.number, last_line(trial.message)) for trial in failed], {}, failures
        ),
        messages=[(trial.number, encodable(trial.message.strip())) for trial in failed],
        settings=Table(("setting", "value"), [(name, _setting(value)) for name, value in results.settings.items()]),
    )


def _setting(value: object) -> object:
    """A value as the table shows it; widths by block in one line each."""
    return "; ".join(f"{key}: {join_widths(row)}" for key, row in value.items()) if isinstance(value, dict) else value


def _compare(best: Trial, baseline: Trial | None, alone: Mapping[int, float]) -> Table:
    """The best network, beside trial 0's where there is one; with what both scored when they were trained alone."""
    rows = [["score", _score(best)], ["parameters", f"{best.params:,}"], ["multiply-accumulates", f"{best.macs:,}"]]
    if best.latency is not None:
        rows.append(["milliseconds", f"{best.cost:.3g}"])
    rows += [[f"widths of {block}", join_widths(widths)] for block, widths in best.spec.block_widths().items()]
    if baseline is None:
        return Table(("", f"best (trial {best.number})"), rows)
    paper = [_score(baseline), f"{baseline.params:,}", f"{baseline.macs:,}"]
    if baseline.latency is not None:
        paper.append(f"{baseline.cost:.3g}")
    paper += map(join_widths, baseline.spec.block_widths().values())
    change = "" if baseline.score is None or best.score is None else f"{best.score - baseline.score:+.4f}"
    ratios = [change, _ratio(best.params, baseline.params), _ratio(best.macs, baseline.macs)]
    if best.latency is not None:
        ratios.append(_ratio(best.cost, baseline.cost))
    ratios += [""] * (len(rows) - len(ratios))
    if alone:
        rows.insert(1, ["score, trained alone", _score_alone(best, alone)])
        paper.insert(1, _score_alone(baseline, alone))
        ratios.insert(1, "")
    compared = [[row[0], own, row[1], ratio] for row, own, ratio in zip(rows, paper, ratios, strict=True)]
    return Table(("", "the paper's widths (trial 0)", f"best (trial {best.number})", "best to paper's"), compared)


def _front(results: Results) -> Table:
    """The trials on the front, cheapest first: the folder of each network and, where some of them were trained alone,
    what they scored then."""
    compared = any(trial.number in results.alone for trial in results.front)
    rows = [
        [f"front/{number:02d}", trial.number, _score(trial), f"{trial.params:,}", f"{trial.macs:,}"]
        + ([] if trial.latency is None else [f"{trial.cost:.3g}"])
        + ([_score_alone(trial, results.alone)] if compared else [])
        for number, trial in enumerate(results.front)
    ]
    timed = ("ms",) if results.front[0].latency is not None else ()
    alone = ("trained alone",) if compared else ()
    return Table(("folder", "trial", "score", "parameters", "MACs", *timed, *alone), rows)


def _figure(name: str, direction: str, png: bytes) -> EmbeddedFigure:
    caption = CAPTIONS[name]
    if direction == "min" and name in TO_MINIMIZE:
        caption = caption.replace(*TO_MINIMIZE[name])
    return embed(name, caption, png)


def _trials(results: Results, found: Importance, pages: Mapping[int, str]) -> Table:
    trials, names = results.ranked, shown_dimensions(results, found)
    rows = []
    for trial in trials:
        ratio = results.relative_macs(trial)
        cost = [f"{trial.params:,}", f"{trial.macs:,}", "" if ratio is None else f"{ratio:.3f}x"]
        if trial.latency is not None:
            cost.append(f"{trial.cost:.3g}")
        values = [shorten(trial.values.get(name)) for name in names]
        rows.append([trial.number, _score(trial), *cost, trial.epochs, f"{trial.seconds:,.0f}", *values])
    marks = {place: "paper" for place, trial in enumerate(trials) if trial.number == 0}
    marks |= {place: "best" for place, trial in enumerate(trials) if trial is results.best}
    links = {row: pages[trial.number] for row, trial in enumerate(trials) if trial.number in pages}
    timed = ("ms",) if results.ranked[0].latency is not None else ()
    heads = ("trial", "score", "parameters", "MACs", "to trial 0", *timed, "epochs", "seconds", *names)
    return Table(heads, rows, marks, links)


def _hidden(results: Results, found: Importance) -> str:
    shown, total = len(shown_dimensions(results, found)), len(found.names)
    return f"{shown} of {total} dimensions; all are in trials.csv." if shown < total else ""


def _score(trial: Trial) -> str:
    return trial.status.lower() if trial.score is None else f"{trial.score:.4f}"


def _score_alone(trial: Trial, alone: Mapping[int, float]) -> str:
    return f"{alone[trial.number]:.4f}" if trial.number in alone else ""


def _ratio(number: float, base: float) -> str:
    return f"{number / base:.3f}x" if base else ""

"""The page of a search: settings, winner, pictures and trials in one HTML file that needs nothing else."""

import base64
import html
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from tuning.importance import Importance
from tuning.reading import encodable, joined, last_line, paper, relative_macs, short
from tuning.report.figures import shown_dimensions
from tuning.results import COMPLETED, FAILED, Results, Trial

# How to read each picture, in the order in which the page shows them.
SENTENCES = {
    "pareto": "Each dot is a trained network: the higher its score and the further left it lies, the better; none "
    "beats those on the line at their cost.",
    "widths": "For each block, the channels of the paper's network on the left and of the best one on the right.",
    "history": "Each dot is a trial in the order of the search; the red line is the best score reached by then, and "
    "the search may well go on where it still moves.",
    "importance": "The longer the bar, the more the score depends on that dimension, as far as a model can tell of "
    "trials that it has not seen; whiskers are one standard deviation, and a trial that went far worse than the rest "
    "counts as the worst of them.",
    "parallel": "Each line is a trial and meets each axis at that dimension's value; where dark lines meet lies a good "
    "value, and the red line is the best.",
}
TO_MINIMISE = {"pareto": ("the higher its score", "the lower its score")}

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 0.5rem; border-bottom: 1px solid #d9dee4; padding-bottom: 0.2rem; }
p.lead { color: #555; margin-top: 0; }
figure { margin: 1.2rem 0 2rem; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { color: #555; max-width: 60rem; margin: 0.4rem auto 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #e6e9ed; white-space: nowrap; }
th { background: #f4f6f8; position: sticky; top: 0; }
th:first-child, td:first-child, .text td, .text th { text-align: left; }
.text td { white-space: normal; overflow-wrap: anywhere; }
.scroll { overflow: auto; max-height: 40rem; width: fit-content; max-width: 100%; border: 1px solid #e6e9ed; }
tr.best td { background: #fdecec; } tr.paper td { background: #eef2f7; }
pre { background: #f4f6f8; padding: 0.7rem 1rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="lead">$lead</p>
<h2>The best network</h2>
$best
<h2>Pictures</h2>
$pictures
<h2>Trials by score</h2>
$trials
<h2>Failed trials</h2>
$failed
<h2>Settings</h2>
$settings
</body>
</html>
""")


def page(folder: Path, results: Results, found: Importance, pictures: Mapping[str, bytes]) -> str:
    """The page as HTML. Every text that comes from the search is escaped.

    Args:
        folder: the search's, for the command that trains the winner.
        results: of the search.
        found: what `importance` says of them.
        pictures: PNG files, by the names of `SENTENCES`.
    """
    states = [trial.status for trial in results.trials]
    others = len(states) - states.count(COMPLETED) - states.count(FAILED)
    counts = f"{states.count(COMPLETED)} trials completed, {states.count(FAILED)} failed, {others} not finished."
    goal = "highest" if results.direction == "max" else "lowest"
    return PAGE.substitute(
        title="Search for the widths of GoogLeNet's branches",
        lead=html.escape(f"{counts} The search looks for the {goal} {results.objective}."),
        best=_best(folder, results),
        pictures=_pictures(results, pictures),
        trials=_trials(results, found),
        failed=_failed(results),
        settings=_table(("setting", "value"), results.settings.items(), kind="text"),
    )


def _best(folder: Path, results: Results) -> str:
    """The winner beside the paper's widths, and how to train it."""
    trials, first = results.ranked, paper(results)
    if not trials:
        return "<p>No trial has completed.</p>"
    best = trials[0]
    heads, rows = _compared(best, first)
    places = [shlex.quote(str(folder / "best" / name)) for name in ("spec.json", "recipe.json")]
    return (
        f"{_table(heads, rows)}\n<p>It is trained by</p>\n"
        f"<pre>googlenet train --spec {html.escape(places[0])} --recipe {html.escape(places[1])}</pre>"
    )


def _compared(best: Trial, first: Trial | None) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of the best network, beside trial 0's where there is one."""
    rows = [["score", _score(best)], ["parameters", f"{best.params:,}"], ["multiply-accumulates", f"{best.macs:,}"]]
    rows += [[f"widths of {block}", joined(row)] for block, row in best.spec.block_widths().items()]
    if first is None:
        return ["", f"best (trial {best.number})"], rows
    theirs = [_score(first), f"{first.params:,}", f"{first.macs:,}"]
    theirs += map(joined, first.spec.block_widths().values())
    change = "" if first.score is None else f"{best.score - first.score:+.4f}"
    ratios = [change, _ratio(best.params, first.params), _ratio(best.macs, first.macs)]
    ratios += [""] * (len(rows) - len(ratios))
    table = [[row[0], theirs, row[1], ratio] for row, theirs, ratio in zip(rows, theirs, ratios, strict=True)]
    return ["", "the paper's widths (trial 0)", f"best (trial {best.number})", "best to paper's"], table


def _pictures(results: Results, pictures: Mapping[str, bytes]) -> str:
    if not results.ranked:
        return "<p>None.</p>"
    return "\n".join(_picture(name, results.direction, png) for name, png in pictures.items())


def _picture(name: str, direction: str, png: bytes) -> str:
    sentence = SENTENCES[name]
    if direction == "min" and name in TO_MINIMISE:
        sentence = sentence.replace(*TO_MINIMISE[name])
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(sentence)}</figcaption></figure>"
    )


def _trials(results: Results, found: Importance) -> str:
    trials, names = results.ranked, shown_dimensions(results, found)
    if not trials:
        return "<p>None.</p>"
    heads = ["trial", "score", "parameters", "MACs", "to trial 0", "epochs", "seconds", *names]
    rows = []
    for trial in trials:
        ratio = relative_macs(trial, results)
        cost = [f"{trial.params:,}", f"{trial.macs:,}", "" if ratio is None else f"{ratio:.3f}x"]
        values = [short(trial.values.get(name)) for name in names]
        rows.append([str(trial.number), _score(trial), *cost, str(trial.epochs), f"{trial.seconds:,.0f}", *values])
    marks = {0: "best"} | {place: "paper" for place, trial in enumerate(trials) if place and trial.number == 0}
    total = len(found.names)
    more = f"<p>{len(names)} of {total} dimensions; all are in trials.csv.</p>" if len(names) < total else ""
    return f'{more}<div class="scroll">{_table(heads, rows, marks=marks)}</div>'


def _failed(results: Results) -> str:
    failed = [trial for trial in results.trials if trial.status == FAILED]
    if not failed:
        return "<p>None.</p>"
    table = _table(("trial", "message"), [(str(t.number), last_line(t.message)) for t in failed], kind="text")
    whole = "".join(f"<h3>Trial {t.number}</h3><pre>{html.escape(encodable(t.message.strip()))}</pre>" for t in failed)
    return f"{table}<details><summary>Messages in full</summary>{whole}</details>"


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "", marks: Mapping[int, str] | None = None
) -> str:
    """A table; its texts are escaped here. `kind` and `marks` (by row) are classes of its style."""
    marks = marks or {}
    lines = [f'<table class="{kind}">', _row("th", heads, "")]
    lines += [_row("td", row, marks.get(number, "")) for number, row in enumerate(rows)]
    return "\n".join((*lines, "</table>"))


def _row(tag: str, texts: Sequence[object], mark: str) -> str:
    cells = "".join(f"<{tag}>{html.escape(str(text))}</{tag}>" for text in texts)
    return f'<tr class="{mark}">{cells}</tr>' if mark else f"<tr>{cells}</tr>"


def _score(trial: Trial) -> str:
    return trial.status.lower() if trial.score is None else f"{trial.score:.4f}"


def _ratio(number: float, base: float) -> str:
    return f"{number / base:.3f}x" if base else ""

"""The figures of a search: what widths cost and gain, which of them matter, and the best network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator
from scipy.stats import skew

from inception_v1.spec import Widths
from inception_v1.summary import BRANCH_COLORS
from tuning.importance import Importance
from tuning.results import FAILED, Results, Trial, score_of, scores_of, worst_shown

TRIAL, BEST, PAPER, LINE = "#4c78a8", "#e45756", "#222222", "#9aa5b1"
MOST_AXES = 12  # of parallel coordinates
MOST_BARS = 24  # of the importance
BRANCH_OF_WIDTH = ("1x1", "3x3", "3x3", "5x5", "5x5", "pool")
OUTPUTS, REDUCTIONS = (0, 2, 4, 5), (1, 3)  # of the six widths


def pareto(results: Results) -> Figure:
    """Score against the cost of the completed trials (see `Trial.cost`); the front is a step line."""
    trials, first = results.ranked, results.baseline
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    if not trials:
        return _empty(figure, axes, "no trial has completed")
    costs = np.array([trial.cost for trial in trials], "float64")
    edge = _scatter(axes, costs, trials, results.direction)
    cheapest = results.front
    right = costs.max() + 0.04 * (np.ptp(costs) or costs.max())
    steps = [*((trial.cost, score_of(trial)) for trial in cheapest), (right, score_of(cheapest[-1]))]
    axes.plot(*zip(*steps), color=TRIAL, linewidth=1.5, drawstyle="steps-post", label="best at that cost or less")
    axes.plot(*zip(*steps[:-1]), "o", color=TRIAL, markersize=6)
    up = 1 if results.direction == "max" else -1
    best = results.best or trials[0]
    if first in trials and first is not best:
        _mark(axes, costs, first, edge, "s", PAPER, "the paper's widths", up)
    name = "the paper's widths are the best" if best is first else f"best (trial {best.number})"
    _mark(axes, costs, best, edge, "*", BEST, name, up)
    if costs.min() > 0 and costs.max() > 20 * costs.min():
        axes.set_xscale("log")
    if trials[0].latency is None:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set(xlabel=cost_name(results), ylabel=results.objective)
    axes.set_title(f"{_count(trials)}, {len(cheapest)} on the front", fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def cost_name(results: Results) -> str:
    """What `Trial.cost` counts in a search."""
    timed = any(trial.latency is not None for trial in results.trials)
    return "milliseconds for a batch" if timed else "multiply-accumulates for one image"


def history(results: Results) -> Figure:
    """Score by trial in the order in which they began, and the best so far."""
    trials = sorted(results.ranked, key=lambda trial: trial.number)
    failed = [trial.number for trial in results.trials if trial.status == FAILED]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    if not trials:
        return _empty(figure, axes, "no trial has completed")
    numbers = np.array([trial.number for trial in trials])
    _scatter(axes, numbers, trials, results.direction)
    gather = np.maximum if results.direction == "max" else np.minimum
    reached = gather.accumulate(scores_of(trials))
    last = max(trial.number for trial in results.trials)
    axes.plot([*numbers, last], [*reached, reached[-1]], color=BEST, drawstyle="steps-post", label="best so far")
    best = results.best or trials[0]
    axes.plot(best.number, score_of(best), "*", color=BEST, markersize=14, label=f"best: trial {best.number}")
    if failed:
        bottom = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), "x", color=PAPER, transform=bottom, label=f"failed: {len(failed)}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=results.objective)
    axes.set_title(f"{results.objective} ({results.direction}) by trial; trial 0 has the paper's widths", fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def hypervolume_growth(results: Results) -> Figure:
    """The hypervolume of the front after each completed trial (see `Results.hypervolumes`)."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.add_subplot()
    if not (grown := results.hypervolumes):
        return _empty(figure, axes, "no trial has completed")
    numbers, areas = list(grown), list(grown.values())
    last = max(trial.number for trial in results.trials)
    axes.plot([*numbers, last], [*areas, areas[-1]], color=TRIAL, drawstyle="steps-post")
    rises = [n for n in range(len(areas)) if areas[n] > (areas[n - 1] if n else 0)]
    axes.plot([numbers[n] for n in rises], [areas[n] for n in rises], "o", color=TRIAL, markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel="hypervolume", ylim=(0, None))
    axes.set_title(
        f"hypervolume of {results.objective} and {cost_name(results)}; dots: trials that add to it", fontsize=10
    )
    axes.grid(alpha=0.3)
    return figure


def _scatter(axes: Axes, x: np.ndarray, trials: Sequence[Trial], direction: str) -> float:
    """Dots at the scores; those far worse than the rest are triangles at the edge. Returns the score of the edge."""
    scores = scores_of(trials)
    worst, best = worst_shown(scores, direction), scores.max() if direction == "max" else scores.min()
    far = scores < worst if direction == "max" else scores > worst
    axes.plot(x[~far], scores[~far], "o", color=TRIAL, alpha=0.45, markersize=5, label="completed trial")
    edge = float(worst + 0.1 * (worst - best))
    if far.any():
        shape, furthest = ("v", scores.min()) if direction == "max" else ("^", scores.max())
        label = f"far worse, not to scale: {far.sum()}, the worst {furthest:.4g}"
        axes.plot(x[far], [edge] * far.sum(), shape, color=LINE, markersize=6, label=label)
    if edge != best:
        axes.set_ylim(*sorted((edge + 0.1 * (worst - best), best + 0.18 * (best - worst))))
    return edge


def _count(trials: Sequence[Trial]) -> str:
    return "1 completed trial" if len(trials) == 1 else f"{len(trials)} completed trials"


def _mark(axes: Axes, x: np.ndarray, trial: Trial, edge: float, marker: str, color: str, name: str, up: int) -> None:
    """A large marker with its name, the best's on its better side (`up`: 1 or -1), the paper's on the other."""
    y, side = up * max(up * score_of(trial), up * edge), up if marker == "*" else -up
    if y == edge:  # no room beyond
        side = up
    axes.plot(trial.cost, y, marker, color=color, markersize=15 if marker == "*" else 8, zorder=4)
    room = trial.cost <= x.min() + 0.7 * np.ptp(x)  # to the right, for the name
    axes.annotate(
        f"{name}\n{trial.score:.4f}",
        (trial.cost, y),
        (8 if room else -8, 10 * side),
        textcoords="offset points",
        ha="left" if room else "right",
        va="bottom" if side > 0 else "top",
        fontsize=8,
        color=color,
        bbox={"facecolor": "white", "alpha": 0.6, "edgecolor": "none", "pad": 1},
        zorder=5,
    )


def parallel(results: Results, found: Importance) -> Figure:
    """Parallel coordinates: an axis for each of the most important dimensions, a line for each completed trial.

    Args:
        results: of the search.
        found: their importance; of more than 12 dimensions its first 12 are drawn.
    """
    trials, names = _best_last(results), shown_dimensions(results, found)
    figure = Figure(figsize=(float(np.clip(2.5 + 0.9 * len(names), 8, 13)), 5.5), layout="constrained")
    axes = figure.add_subplot()
    if not trials or not names:
        return _empty(figure, axes, "no trial has completed" if names else "the search has no dimensions")
    columns = [[trial.values.get(name) for trial in trials] for name in names]
    places, ticks = zip(*map(placed, columns, scales(columns)))
    lines = np.stack([np.column_stack([np.arange(len(names)), row]) for row in np.column_stack(places)])
    _draw_lines(figure, axes, lines, trials, results)
    numbers, best = [trial.number for trial in trials], trials[-1]
    if 0 in numbers[:-1]:
        axes.plot(*lines[numbers.index(0)].T, "s--", color=PAPER, markersize=4, zorder=3, label="the paper's widths")
    name = f"best: trial {best.number}, {best.score:.4f}" if best.number else "best: the paper's widths"
    axes.plot(*lines[-1].T, color="white", linewidth=5, zorder=4)
    axes.plot(*lines[-1].T, "o-", color=BEST, linewidth=2.6, markersize=6, zorder=4, label=name)
    _draw_axes(axes, names, ticks)
    figure.suptitle(_parallel_title(results, names, found), fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def shown_dimensions(results: Results, found: Importance) -> list[str]:
    """The dimensions there is room for, in their own order: all, or the most important 12."""
    chosen = found.names[:MOST_AXES]
    return [name for name in results.dimensions if name in chosen]


def scales(columns: Sequence[Sequence[float | int | str | None]]) -> list[np.ndarray]:
    """The numbers that the axis of each dimension must hold: its own, and those of the dimensions like it.

    Both ends of their ranges differ by less than a quarter of the first one's range. Texts have none.
    """
    groups: list[list[np.ndarray]] = []
    owners = []
    for column in columns:
        mine = np.array([] if _texts(column) else [value for value in column if value is not None], "float64")
        group = next((group for group in groups if _alike(group[0], mine)), None)
        if group is None:
            groups.append(group := [])
        group.append(mine)
        owners.append(group)
    return [np.concatenate(group) for group in owners]


def _texts(column: Sequence[float | int | str | None]) -> bool:
    return any(isinstance(value, str) for value in column)


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    if len(first) == 0 or len(second) == 0:
        return False
    return max(abs(first.min() - second.min()), abs(first.max() - second.max())) < np.ptp(first) / 4


def placed(column: Sequence[float | int | str | None], scale: np.ndarray) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Positions of values on an axis from 0 to 1 (NaN for None), and its ticks.

    Texts are spaced evenly in alphabetical order. Numbers whose logarithms are spread more evenly than themselves are
    on a logarithmic axis.

    Args:
        column: values of a dimension.
        scale: numbers that the axis must hold, from `scales`.
    """
    if _texts(column):
        texts = sorted({str(value) for value in column if value is not None})
        place = {text: (number + 0.5) / len(texts) for number, text in enumerate(texts)}
        at = np.array([np.nan if value is None else place[str(value)] for value in column])
        return at, [(where, text if len(text) <= 14 else f"{text[:13]}…") for text, where in place.items()]
    numbers = np.array([np.nan if value is None else value for value in column], "float64")
    if len(known := np.unique(scale)) < 2:
        return np.where(np.isnan(numbers), np.nan, 0.5), [(0.5, f"{value:.4g}") for value in known]
    as_log = log_spread(scale)
    at = _between(known, numbers, as_log)
    inner = LogLocator(subs=(1, 2, 5)) if as_log else MaxNLocator(5, steps=(1, 2, 2.5, 5, 10))
    marks = known if len(known) <= 6 else inner.tick_values(known[0], known[-1])
    ticks = [(0.0, f"{known[0]:.3g}"), (1.0, f"{known[-1]:.3g}")]
    for value in marks[(marks > known[0]) & (marks < known[-1])]:
        where = float(_between(known, value, as_log))
        if all(abs(where - other) > 0.06 for other, _ in ticks):
            ticks.append((where, f"{value:.3g}"))
    return at, ticks


def _between(known: np.ndarray, values: np.ndarray, as_log: bool) -> np.ndarray:
    """0 at the least known number, 1 at the largest."""
    low, high, values = (np.log(v) if as_log else v for v in (known[0], known[-1], values))
    return (values - low) / (high - low)


def log_spread(numbers: np.ndarray) -> bool:
    """Whether positive numbers span a factor of 8 and are less skewed as logarithms."""
    if numbers.min() <= 0 or numbers.max() < 8 * numbers.min():
        return False
    return bool(abs(skew(np.log(numbers))) < abs(skew(numbers)))


def _best_last(results: Results) -> list[Trial]:
    """The trials in the order in which they are drawn: better ones over worse ones, the best over all."""
    trials = results.ranked[::-1]
    return sorted(trials, key=lambda trial: trial is results.best)


def _draw_lines(figure: Figure, axes: Axes, lines: np.ndarray, trials: Sequence[Trial], results: Results) -> None:
    """A line a trial, the better the darker, and the scale of their colors."""
    scores = scores_of(trials)
    most = results.direction == "max"
    worst = worst_shown(scores, results.direction)
    best = scores.max() if results.direction == "max" else scores.min()
    scale, colors = Normalize(*sorted((worst, best))), "viridis_r" if most else "viridis"
    width, opacity = (1.6, 0.85) if len(trials) <= 60 else (0.9, 0.5)
    drawn = LineCollection(list(lines), cmap=colors, norm=scale, linewidths=width, alpha=opacity, zorder=2)
    drawn.set_array(scores)
    axes.add_collection(drawn)
    if worst == best:
        return
    extend = "neither" if worst == scores[0] else "min" if most else "max"
    bar = figure.colorbar(ScalarMappable(scale, colors), ax=axes, extend=extend, pad=0.02, aspect=35)
    bar.set_label(results.objective)


def _draw_axes(axes: Axes, names: Sequence[str], ticks: Sequence[list[tuple[float, str]]]) -> None:
    for x, marks in enumerate(ticks):
        axes.axvline(x, color=LINE, linewidth=1, zorder=1)
        for y, text in marks:
            axes.plot((x - 0.03, x), (y, y), color=PAPER, linewidth=0.8, zorder=5)
            box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
            axes.text(x - 0.05, y, text, ha="right", va="center", fontsize=7.5, bbox=box, zorder=5, parse_math=False)
    rotated: dict[str, Any] = {"rotation": 25, "ha": "right"} if max(map(len, names)) > 11 else {}
    axes.set_xticks(range(len(names)), names, fontsize=9, parse_math=False, **rotated)
    axes.set_yticks([])
    axes.set(xlim=(-0.45, len(names) - 0.8), ylim=(-0.04, 1.04))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _parallel_title(results: Results, names: Sequence[str], found: Importance) -> str:
    title = f"{_count(results.ranked)}; the darker, the better"
    total = len(found.names)
    if len(names) == total:
        return title
    if not found.means:
        return f"{title}\nthe first {len(names)} of {total} dimensions"
    caution = "; the importance cannot be trusted" if found.doubt else ""
    return f"{title}\nthe {len(names)} most important of {total} dimensions{caution}"


def importance_bars(found: Importance) -> Figure:
    """How much of the score's variance a model loses without each dimension; gray where it cannot be trusted."""
    shown = min(len(found.means), MOST_BARS)
    figure = Figure(figsize=(9, float(np.clip(1.8 + 0.26 * shown, 3, 9))), layout="constrained")
    axes = figure.add_subplot()
    if not shown:
        return _empty(figure, axes, f"The importance of the dimensions cannot be determined.\n{found.doubt}")
    rows = np.arange(shown)[::-1]
    color = LINE if found.doubt else TRIAL
    error = {"ecolor": PAPER, "elinewidth": 0.8, "capsize": 2}
    axes.barh(rows, found.means[:shown], xerr=found.spreads[:shown], color=color, error_kw=error)
    axes.set_yticks(rows, found.names[:shown], fontsize=9, parse_math=False)
    axes.axvline(0, color=PAPER, linewidth=0.8)
    axes.set_xlabel("R² lost when the dimension's values are shuffled")
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    model = f"random forest on {found.trials} trials, cross-validated R² {found.r2:.2f}"
    if len(found.names) > shown:
        model += f"; the first {shown} of {len(found.names)} dimensions"
    axes.set_ylim(-0.7, shown - 0.3)
    title = f"{model}\nNot to be trusted. {found.doubt}" if found.doubt else model
    axes.set_title(title, fontsize=10, color=BEST if found.doubt else PAPER)
    return figure


def widths(results: Results) -> Figure:
    """Widths of the best network's blocks beside those of trial 0: outputs above, 1x1 reductions below."""
    trials, first = results.ranked, results.baseline
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    if not trials:
        return _empty(figure, figure.add_subplot(), "no trial has completed")
    best = results.best or trials[0]
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    pairs = [(0.2, best, 1.0)] if first is None else [(-0.2, first, 0.5), (0.2, best, 1.0)]
    for axes, columns in ((above, OUTPUTS), (below, REDUCTIONS)):
        for shift, trial, opacity in pairs:
            _stacks(axes, list(trial.spec.block_widths().values()), columns, shift, opacity)
        axes.grid(alpha=0.3, axis="y")
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
    above.set_ylabel("channels out")
    below.set_ylabel("channels of the\n1x1 reductions")
    below.set_xticks(range(len(best.spec.block_widths())), list(best.spec.block_widths()))
    handles = [Patch(color=color, label=f"{name} branch") for name, color in BRANCH_COLORS.items()]
    above.legend(handles=handles, loc="upper left", fontsize=9, frameon=False)
    same = "" if first is not best else ", which has the paper's widths"
    left = "" if first is None else "left and pale: the paper's widths (trial 0); "
    figure.suptitle(f"{left}right: the best network (trial {best.number}{same})", fontsize=10)
    return figure


def _stacks(axes: Axes, blocks: Sequence[Widths], columns: Sequence[int], shift: float, opacity: float) -> None:
    """A stack of some columns of the widths for each block, with its numbers where there is room for them."""
    room = (0.03 if columns == OUTPUTS else 0.1) * max(sum(row[column] for column in columns) for row in blocks)
    low = np.zeros(len(blocks))
    for column in columns:
        heights = np.array([row[column] for row in blocks], "float64")
        color = BRANCH_COLORS[BRANCH_OF_WIDTH[column]]
        x = np.arange(len(blocks)) + shift
        axes.bar(x, heights, 0.38, low, color=color, alpha=opacity, edgecolor="white", linewidth=0.6)
        for where, height, bottom in zip(x, heights, low):
            if height >= room:
                axes.text(where, bottom + height / 2, f"{height:.0f}", fontsize=7, ha="center", va="center")
        low += heights


def _empty(figure: Figure, axes: Axes, text: str) -> Figure:
    figure.set_size_inches(9, 2)
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=12, color=PAPER, wrap=True)
    return figure

"""Figures of branches: bars of one image's contributions, and the heat map of a split's."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from inception_v1.spec import BRANCHES
from inception_v1.summary import BRANCH_COLORS
from interpretability.branches import BranchContributions
from interpretability.specialization import Specialization

GROUP, BAR, LEFT, TOP, PLOT, BELOW = 68, 13, 46, 10, 180, 40  # pixels
SIGNIFICANT = 0.05  # of an adjusted p-value
NAMED_CLASSES = 60  # of which a heat map has the names at most


class Bar(NamedTuple):
    """A bar of a `BarFigure`: a rectangle, and what a browser shows when the pointer is on it."""

    x: float
    y: float
    height: float
    color: str
    title: str


class BarFigure(NamedTuple):
    """Bars by block and branch, in the coordinates of an SVG drawing.

    Attributes:
        width: of the drawing, pixels.
        height: likewise.
        zero: y of the line from which the bars start.
        bars: all of them, each `BAR` wide.
        labels: (x of the middle, name, total) of each block; the total is "" where totals make no sense.
        ticks: (y, text) of the axis.
    """

    width: int
    height: int
    zero: float
    bars: list[Bar]
    labels: list[tuple[float, str, str]]
    ticks: list[tuple[float, str]]


def branch_figures(found: BranchContributions, image: int) -> dict[str, BarFigure]:
    """The figures of an image, by what they show: activation x gradient and, where it was asked for, ablation."""
    figures = {"activation x gradient": bar_figure(found.blocks, found.values[image])}
    if found.ablation is not None:
        figures["fall of the logit when the output of one branch is zero (ablation)"] = bar_figure(
            found.blocks, found.ablation[image], totals=False
        )
    return figures


def branch_rows(found: BranchContributions, image: int) -> list[tuple[str, list[str], str]]:
    """The same as rows of a table: (block, "logits (share)" of each branch, total) in order."""
    rows = []
    for block, values, parts in zip(found.blocks, found.values[image], found.shares()[image], strict=True):
        cells = [f"{value:+.3f} ({share:.0%})" for value, share in zip(values, parts, strict=True)]
        rows.append((block, cells, f"{values.sum():+.3f}"))
    return rows


def bar_figure(blocks: Sequence[str], values: np.ndarray, totals: bool = True) -> BarFigure:
    """Draws contributions.

    Args:
        blocks: their names.
        values: `(blocks, 4)`, logits.
        totals: whether each block gets the sum of its branches.
    """
    ends = (min(0.0, float(values.min())), max(0.0, float(values.max())))
    ticks = [float(tick) for tick in MaxNLocator(4).tick_values(*ends)]
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return round(TOP + PLOT * (high - value) / (high - low), 1)

    bars, labels = [], []
    for number, (block, row) in enumerate(zip(blocks, values.tolist(), strict=True)):
        left, name = LEFT + GROUP * number, block.removeprefix("inception_")
        for at, (branch, value) in enumerate(zip(BRANCHES, row, strict=True)):
            height = round(abs(y(value) - y(0)), 1)
            title = f"{name} {branch}: {value:+.3g}"
            bars.append(Bar(left + 6 + at * (BAR + 1), y(max(value, 0.0)), height, BRANCH_COLORS[branch], title))
        labels.append((left + GROUP / 2, name, f"{sum(row):+.2g}" if totals else ""))
    width, height = LEFT + GROUP * len(blocks), TOP + PLOT + BELOW
    return BarFigure(width, height, y(0), bars, labels, [(y(tick), f"{tick:g}") for tick in ticks])


def heat_map(found: Specialization, blocks: Sequence[str], classes: Sequence[str]) -> Figure:
    """The mean share of each branch for each class. A star marks specialized branches, and the number on the right is
    the spread."""
    rows = found.shares.reshape(-1, len(classes))
    limit = float(np.nanmax(np.abs(rows))) or 1.0
    width = float(np.clip(3.5 + 0.42 * len(classes), 6, 18))
    figure = Figure(figsize=(width, 2.2 + 0.24 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(rows, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    stars = np.where(found.adjusted < SIGNIFICANT, " *", "  ").ravel()
    names = [f"{block.removeprefix('inception_')} {branch}" for block in blocks for branch in BRANCHES]
    axes.set_yticks(range(len(rows)), [name + star for name, star in zip(names, stars, strict=True)], fontsize=8)
    for number in range(len(BRANCHES), len(rows), len(BRANCHES)):
        axes.axhline(number - 0.5, color="black", linewidth=0.6)
    if len(classes) <= NAMED_CLASSES:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    for number, spread in enumerate(found.spread.ravel().tolist()):
        axes.annotate(f" {spread:.2f}", (1, number), xycoords=("axes fraction", "data"), va="center", fontsize=7)
    figure.colorbar(image, label="mean share of the block's gain", pad=0.09)
    axes.set_xlabel("class")
    axes.set_title(f"* adjusted p < {SIGNIFICANT}; on the right: standard deviation between the classes", fontsize=9)
    return figure

"""What `googlenet widths` writes: proposed widths as a network and a table, and the figure they follow from."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from rich.table import Table

from inception_v1.atomic_files import atomic_folder, check_folder, write_json
from inception_v1.errors import UserError
from inception_v1.spec import Spec, Widths
from inception_v1.summary import BRANCH_COLORS
from tuning.correlations import OFFSETS
from tuning.width_proposals import BlockClusters, CorrelatedWidths

SPEC, TABLE, FIGURE = "spec.json", "widths.csv", "correlations.png"
KERNELS = ("1x1", "3x3", "5x5")  # by offset
COLORS, RANGE = "RdBu_r", Normalize(-1, 1)
OUTPUTS = {"1x1": "conv1", "3x3": "conv3", "5x5": "conv5", "pool": "pool"}


def check_new(folder: Path) -> None:
    """Raises UserError where something is at the path already, or it cannot be a folder."""
    check_folder(folder.absolute().parent)
    if folder.exists():
        raise UserError(f"Expected a new folder (--out); Received: {str(folder)!r}, which is there.")


def write_widths(folder: Path, found: CorrelatedWidths, before: Spec) -> None:
    """Writes the folder whole: `spec.json`, which `googlenet train --spec` takes, `widths.csv` and
    `correlations.png`.

    Args:
        folder: new.
        found: what to write.
        before: the network that was measured.

    Raises:
        OSError: the folder cannot be written, or is there.
    """
    with atomic_folder(folder) as part:
        write_json(part / SPEC, found.spec.to_dict())
        with (part / TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["block", "channels", *(f"clusters_{kernel}" for kernel in KERNELS), *Widths._fields])
            old = before.block_widths()
            for block, own in found.blocks.items():
                row = [block, len(own.clusters.labels), *own.clusters.counts()]
                writer.writerow([*row, *found.spec.block_widths()[block]])
                writer.writerow([f"{block} before", *[""] * 4, *old[block]])
        correlation_figure(found, before).savefig(part / FIGURE, dpi=110)


def widths_table(found: CorrelatedWidths, before: Spec) -> Table:
    """Clusters and widths of every block for the terminal."""
    title = f"{found.macs:,} multiply-accumulates of at most {found.budget:,}"
    shown = Table(title=title, caption="clusters for 1x1, 3x3, 5x5; widths: proposed (before)")
    heads = ("block", "clusters", *OUTPUTS)
    for number, head in enumerate(heads):
        shown.add_column(head, justify="right" if number else "left")
    new, old = found.spec.block_widths(), before.block_widths()
    for block, own in found.blocks.items():
        widths = [f"{getattr(new[block], field)} ({getattr(old[block], field)})" for field in OUTPUTS.values()]
        shown.add_row(block, ", ".join(map(str, own.clusters.counts())), *widths)
    return shown


def correlation_figure(found: CorrelatedWidths, before: Spec) -> Figure:
    """The correlations at the input of each block at every offset, its channels by cluster, and the widths that follow.

    Lines separate clusters that hold together at offsets of 0, 1 and 2 pixels. Bars are fractions of the outputs of a
    block: left before, right proposed.
    """
    figure = Figure(figsize=(2 * len(found.blocks) + 1, 8.5), layout="constrained")
    axes = figure.subplots(len(OFFSETS) + 1, len(found.blocks), squeeze=False)
    for column, (block, own) in enumerate(found.blocks.items()):
        order, borders = _order(own)
        for offset, place in zip(OFFSETS, axes[:, column]):
            matrix = own.correlations.at(offset)[np.ix_(order, order)]
            place.imshow(matrix, cmap=COLORS, norm=RANGE, interpolation="nearest", aspect="equal")
            for border in borders:
                place.axhline(border - 0.5, color="black", linewidth=0.6)
                place.axvline(border - 0.5, color="black", linewidth=0.6)
            place.set(xticks=[], yticks=[])
            if not column:
                place.set_ylabel(("one position", "1 pixel apart", "2 pixels apart")[offset])
        axes[0, column].set_title(f"{block}\n{' + '.join(map(str, own.clusters.counts()))} clusters", fontsize=9)
        _bars(axes[-1, column], before.block_widths()[block], found.spec.block_widths()[block], not column)
    figure.colorbar(ScalarMappable(RANGE, COLORS), ax=axes[:-1], label="correlation", shrink=0.6, pad=0.01)
    handles, labels = axes[-1, 0].get_legend_handles_labels()
    figure.legend(handles[: len(OUTPUTS)], labels[: len(OUTPUTS)], loc="outside lower center", ncols=4, frameon=False)
    return figure


def _order(own: BlockClusters) -> tuple[np.ndarray, list[int]]:
    """Channels by the offset of their cluster and by cluster, those of none last; where another offset begins."""
    labels = own.clusters.labels
    offsets = np.where(labels >= 0, own.clusters.offsets[labels] if len(own.clusters.offsets) else 0, len(OFFSETS))
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    order = np.lexsort((labels, -sizes[labels], offsets))
    return order, (np.flatnonzero(np.diff(offsets[order])) + 1).tolist()


def _bars(axes: Axes, before: Widths, proposed: Widths, first: bool) -> None:
    for x, widths in enumerate((before, proposed)):
        total, bottom = sum(getattr(widths, field) for field in OUTPUTS.values()), 0.0
        for branch, field in OUTPUTS.items():
            height = getattr(widths, field) / total
            axes.bar(x, height, 0.7, bottom, color=BRANCH_COLORS[branch], label=branch)
            axes.text(x, bottom + height / 2, getattr(widths, field), ha="center", va="center", fontsize=7)
            bottom += height
    axes.set_xticks([0, 1], ["before", "proposed"], fontsize=8)
    axes.set(ylim=(0, 1), yticks=[0, 0.5, 1] if first else [])
    if first:
        axes.set_ylabel("fraction of the outputs")

"""What a network looks like: the paper's Table 1 for any spec, and a drawing with the widths to scale."""

import os
import typing
from pathlib import Path

from inception_v1.atomic_files import atomic_file, check_file
from inception_v1.cost import Cost, CostRow, cost
from inception_v1.extras import extra
from inception_v1.layout import Box, Column, columns
from inception_v1.spec import AUX_TAPS, BRANCHES, Conv, Inception, LayerSpec, MaxPool, Spec, Widths

if typing.TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

WIDTH_TITLES = ("1x1", "3x3 red.", "3x3", "5x5 red.", "5x5", "pool proj.")
IMAGE_SUFFIXES = (".svg", ".png", ".pdf")
BRANCH_COLORS = dict(zip(BRANCHES, ("#4c78a8", "#f58518", "#54a24b", "#b279a2")))
PLAIN, POOL, NORM, HEAD = "#9aa5b1", "#d9dee4", "#c9a227", "#e45756"


def table(spec: Spec) -> "Table":
    """The paper's Table 1 for `spec`: widths, parameters and multiply-accumulates per layer, block and head.

    A spec with `reduction=False` gets two more columns: the same row with 1x1 reductions.

    Raises:
        UserError: height or width of the input is None.
    """
    import dataclasses

    from rich.table import Table

    counted = cost(spec)
    reduced = None if spec.reduction else cost(dataclasses.replace(spec, reduction=True))
    result = Table(title=_title(spec), title_justify="left", header_style="bold")
    for title in ("row", "kernel", "output", *WIDTH_TITLES, "parameters", "MACs"):
        result.add_column(title, justify="left" if title == "row" else "right", no_wrap=True)
    if reduced:
        result.add_column("parameters\nwith reductions", justify="right")
        result.add_column("MACs\nwith reductions", justify="right")
    for index, row in enumerate(counted.rows):
        result.add_row(*_cells(spec, row), *(_counts(reduced.rows[index]) if reduced else ()))
    result.add_section()
    result.add_row("total", *[""] * 8, *_totals(counted), *(_totals(reduced) if reduced else ()), style="bold")
    if spec.has_aux:
        main, main_reduced = counted.without_aux(), reduced and reduced.without_aux()
        result.add_row("at inference", *[""] * 8, *_totals(main), *(_totals(main_reduced) if main_reduced else ()))
    if reduced:
        more = f"without 1x1 reductions: {counted.params / reduced.params:.1f}x the parameters"
        result.caption = f"{more}, {counted.macs / reduced.macs:.1f}x the multiply-accumulates"
    return result


def _title(spec: Spec) -> str:
    height, width, channels = spec.input_shape
    scale = "" if spec.width_multiplier == 1 else f", width x{spec.width_multiplier:g}"
    return f"{spec.variant} ({spec.family.source}), input {height}x{width}x{channels}, {spec.stem} stem{scale}"


def _cells(spec: Spec, row: CostRow) -> tuple[str, ...]:
    widths = [str(n) for n in row.widths] if row.widths else [""] * 6
    if row.widths and not spec.reduction:
        widths = ["" if field in ("reduce3", "reduce5", "pool") else n for field, n in zip(Widths._fields, widths)]
    return (row.name, row.kernel, "x".join(map(str, row.output)), *widths, *_counts(row))


def _counts(row: CostRow) -> tuple[str, str]:
    params = row.params + row.state
    return (f"{params:,}" if params else "", f"{row.macs:,}" if row.macs else "")


def _totals(counted: Cost) -> tuple[str, str]:
    return (f"{counted.params:,}", f"{counted.macs:,}")


def draw(spec: Spec, path: str | os.PathLike[str]) -> None:
    """Draws `spec` from left to right, every bar as tall as its layer has channels, the heads on their taps.

    Args:
        spec: the network; its height and width must be fixed.
        path: file to write, ending in .svg, .png or .pdf.

    Raises:
        UserError: another ending, a folder that does not exist, an input of unknown size, or no Matplotlib.
    """
    path = Path(path)
    check_file(path, IMAGE_SUFFIXES)
    with extra("interpret"):
        import matplotlib

    kind = path.suffix[1:].lower()
    # Text stays text, and the same spec gives the same file.
    with atomic_file(path) as part, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": spec.name}):
        _drawing(spec).savefig(part, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def _drawing(spec: Spec) -> "Figure":
    from matplotlib.figure import Figure

    cost(spec)  # refuses images of unknown size
    figure = Figure(figsize=(17, 5.6), layout="constrained")
    axes = figure.add_subplot()
    x, resolution, taps = 0.0, None, {}
    for column in columns(spec):
        if column.size != resolution and isinstance(column.layer, Conv | MaxPool):
            resolution = column.size
            axes.text(column.x, -40, f"{resolution[0]}x{resolution[1]}", fontsize=8, color="#555555", va="top")
        _draw_column(axes, column)
        x = taps[column.layer.name] = column.end
    for head, block in AUX_TAPS.items():
        if head in spec.heads:
            _draw_head(axes, head, taps[f"inception_{block}"], -150)
    if "main" in spec.heads:
        axes.annotate("", (x + 40, 500), (x, 500), arrowprops={"arrowstyle": "->", "color": HEAD})
        axes.text(x + 46, 500, f"main\n{spec.classes}", fontsize=9, color=HEAD, va="center")
    axes.set_xlim(-20, x + 130)
    axes.set_ylim(-330, 1120)
    axes.set_title(f"{_title(spec)}: bar height = channels", fontsize=10, loc="left")
    axes.set_axis_off()
    _legend(axes)
    return figure


def _draw_column(axes: "Axes", column: Column) -> None:
    layer = column.layer
    if isinstance(layer, Inception):
        name = layer.name.removeprefix("inception_")
        axes.text(column.x + 47, column.height + 14, name, fontsize=9, ha="center", weight="bold")
    for box in column.boxes:
        bars = axes.bar(box.x, box.height, box.width, bottom=box.low, align="edge", color=box_color(layer, box))
        for bar in bars:
            bar.set(alpha=0.55 if box.is_reduction else 1.0, edgecolor="white", linewidth=0.5)
        if box.branch and box.height > 26:
            axes.text(box.x + 15, box.low + box.height / 2, str(box.channels), fontsize=6, ha="center", va="center")
    if isinstance(layer, Conv):
        name = f"{layer.kernel}x{layer.kernel}" + (f"/{layer.stride}" if layer.stride > 1 else "")
        axes.text(column.x + 15, column.height + 14, f"{name}\n{column.channels}", fontsize=7, ha="center")


def box_color(layer: LayerSpec, box: Box) -> str:
    """The color of a box of a layer."""
    return BRANCH_COLORS[box.branch] if box.branch else {Conv: PLAIN, MaxPool: POOL}.get(type(layer), NORM)


def _draw_head(axes: "Axes", head: str, x: float, y: float) -> None:
    axes.annotate("", (x + 20, y), (x - 26, 0), arrowprops={"arrowstyle": "->", "color": HEAD})
    axes.text(
        x + 24, y - 10, f"{head}: pool, 1x1 conv,\ndense, classifier (loss x0.3)", fontsize=8, color=HEAD, va="top"
    )


def _legend(axes: "Axes") -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=color, label=f"{name} branch") for name, color in BRANCH_COLORS.items()]
    handles += [Patch(color=PLAIN, label="convolution"), Patch(color=POOL, label="max pool")]
    handles += [
        Patch(color=NORM, label="LRN"),
        Patch(color=BRANCH_COLORS["3x3"], alpha=0.55, label="1x1 reduction (paler)"),
    ]
    axes.legend(handles=handles, loc="upper left", fontsize=8, frameon=False, ncols=2)

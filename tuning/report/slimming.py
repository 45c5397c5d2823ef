"""The section of a slimmed run's page: widths, sensitivity of the branches, accuracy against cost and latency."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from inception_v1.errors import UserError
from inception_v1.summary import BRANCH_COLORS
from training.report.page import EmbeddedFigure, Section, Table, embed
from training.report.run_page import write_run_page
from training.run_folder import RunFolder
from tuning.slim_settings import SLIMMING

SOURCE, SLIMMED, PLAIN = "#222222", "#e45756", "#9aa5b1"
CAPTIONS = {
    "sensitivity": "How much the loss on training images rises with half of a branch's channels and all of the others, "
    "before fine-tuning; branches with low bars lose most.",
    "accuracy": "Further left at the same height is better. The square and the stars are measured on the test split, "
    "the hollow star before fine-tuning. The gray line is the accuracy on training images before fine-tuning, under "
    "smaller and smaller budgets. Before fine-tuning, batch normalization has statistics of the images at hand.",
}


def write_slimming_page(run: RunFolder) -> Path:
    """Writes the page of a slimmed run from what its folder holds; its path."""
    return write_run_page(run, slimming_section(slimming_of(run)))


def slimming_of(run: RunFolder) -> dict[str, Any]:
    """What the `slimming.json` of a slimmed run holds. Raises UserError where it is missing or damaged."""
    path = run / SLIMMING
    try:
        found = json.loads(path.read_text("utf-8"))
        found["source"], found["settings"], found["networks"]["slimmed"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"Expected the {SLIMMING} of a slimmed run; Received: {str(path)!r}, missing or damaged ({error}). "
            "The run's best.keras can be used; slim the source again (--overwrite) for the numbers."
        ) from error
    return found


def slimming_section(about: Mapping[str, Any]) -> Section:
    """The section, from what `slimming.json` holds."""
    settings, networks = about["settings"], about["networks"]
    budget = (
        f"{settings['keep_macs']:.0%} of the multiply-accumulates"
        if settings["max_macs"] is None
        else f"{settings['max_macs']:,.0f} multiply-accumulates"
    )
    text = (
        f"From {about['source']}, under a budget of {budget}. Channels are ranked by {settings['criterion']} and "
        f"allocated by {settings['allocation']}, measured on {about['images']} training images; fine-tuned "
        f"{'with' if settings['teacher'] else 'without'} the unslimmed network as teacher."
    )
    drawn = {"sensitivity": sensitivity_bars(about), "accuracy": accuracy_by_cost(about)}
    figures = [_embedded(name, figure) for name, figure in drawn.items()]
    widths = _widths(networks["source"]["widths"], networks["slimmed"]["widths"])
    return Section("Slimming", text, networks_table(networks), figures, {"Channels of each convolution": widths})


def networks_table(networks: Mapping[str, Any]) -> Table:
    """Costs, accuracy and latency of both networks, and their ratio."""
    source, slimmed = networks["source"], networks["slimmed"]
    rows = []
    for title, key in (("parameters", "params"), ("multiply-accumulates", "macs")):
        rows.append([title, f"{source[key]:,}", f"{slimmed[key]:,}", f"{slimmed[key] / source[key]:.1%}"])
    before = [f"{source['top1']:.2%}", f"{slimmed['before']:.2%}", f"{100 * (slimmed['before'] - source['top1']):+.2f}"]
    rows.append(["test top-1 before fine-tuning", *before])
    if "top1" in slimmed:
        change = f"{100 * (slimmed['top1'] - source['top1']):+.2f}"
        rows.append(["test top-1", f"{source['top1']:.2%}", f"{slimmed['top1']:.2%}", change])
    if "seconds" in slimmed:
        cells = [f"{1000 * network['seconds']:.2f}" for network in (source, slimmed)]
        ratio = f"{slimmed['seconds'] / source['seconds']:.1%}"
        rows.append(["milliseconds for one image (ONNX, this machine)", *cells, ratio])
    return Table(("", "source", "slimmed", ""), rows)


def _widths(source: Mapping[str, int], slimmed: Mapping[str, int]) -> Table:
    rows = [[name, width, slimmed[name], f"{slimmed[name] / width:.0%}"] for name, width in source.items()]
    return Table(("convolution", "source", "slimmed", "kept"), rows)


def sensitivity_bars(about: Mapping[str, Any]) -> Figure:
    """Rise of the loss with half of the channels of each branch: a group of bars for each block."""
    level = about["levels"].index(0.5)
    rises = {name: losses[level] for name, losses in about["sensitivity"].items()}
    places = list(dict.fromkeys(_place(name) for name in rises))
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, (branch, color) in enumerate(BRANCH_COLORS.items()):
        own = {_place(name): rise for name, rise in rises.items() if name.endswith(f"/{branch}")}
        x = [places.index(place) + (number - 1.5) * 0.2 for place in own]
        axes.bar(x, list(own.values()), 0.2, color=color, label=branch)
    stem = {_place(name): rise for name, rise in rises.items() if name.startswith("stem/")}
    axes.bar([places.index(place) for place in stem], list(stem.values()), 0.4, color=PLAIN, label="stem")
    axes.set_xticks(range(len(places)), places, fontsize=8)
    axes.axhline(0, color=SOURCE, linewidth=0.5)
    axes.set_yscale("symlog", linthresh=0.01)  # of branches that the loss hardly misses too
    axes.set(ylabel="rise of the loss, nats")
    axes.set_title("Loss with half of a branch's channels", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, ncols=5)
    return figure


def accuracy_by_cost(about: Mapping[str, Any]) -> Figure:
    """Accuracy against multiply-accumulates, and beside it against latency where that was measured."""
    networks = about["networks"]
    timed = all("seconds" in network for network in networks.values())
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2 if timed else 1, sharey=True, squeeze=False)[0]
    macs, _, top1 = np.array(about["curve"]).T
    axes[0].plot(macs, top1, ".-", color=PLAIN, label="before fine-tuning, training images")
    axes[0].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0].set(xlabel="multiply-accumulates for one image", ylabel="top-1")
    _points(axes[0], {name: network["macs"] for name, network in networks.items()}, networks)
    if timed:
        _points(axes[1], {name: 1000 * network["seconds"] for name, network in networks.items()}, networks)
        axes[1].set(xlabel="milliseconds for one image (ONNX, median)")
    for one in axes:
        one.set(xlim=(0, 1.05 * one.get_xlim()[1]), ylim=(0, 1.05))
        one.yaxis.set_major_formatter(PercentFormatter(1.0))
        one.grid(alpha=0.3)
        one.legend(fontsize=8)
    return figure


def _points(axes: Any, costs: Mapping[str, float], networks: Mapping[str, Any]) -> None:
    axes.plot(costs["source"], networks["source"]["top1"], "s", color=SOURCE, label="source, test")
    before = networks["slimmed"]["before"]
    axes.plot(costs["slimmed"], before, "*", color=SLIMMED, markersize=13, fillstyle="none", label="slimmed, not tuned")
    if "top1" in networks["slimmed"]:
        axes.plot(
            costs["slimmed"], networks["slimmed"]["top1"], "*", color=SLIMMED, markersize=13, label="slimmed, test"
        )


def _place(branch: str) -> str:
    """Where a branch stands in a figure: its block, or its convolution of the stem without the kernel."""
    first, _, rest = branch.partition("/")
    return rest.replace("_", "\n", 1) if first == "stem" else first


def _embedded(name: str, figure: Figure) -> EmbeddedFigure:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return embed(name, CAPTIONS[name], file.getvalue())

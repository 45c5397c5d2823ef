"""Scores as tables and sentences for a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table


def score_table(result: dict[str, Any]) -> Table:
    """Scores of each head with their intervals, from what `evaluate` returns or `metrics.json` holds."""
    crops = f", {result['crops']} crops each" if result.get("crops", 1) > 1 else ""
    models = f", {len(result['runs'])} models" if len(result.get("runs", ())) > 1 else ""
    split = result.get("split") or result["splits"]["test"]
    table = Table(
        title=f"{result['images']:,} images of {split}{models}{crops}",
        caption="below: 95 % intervals; ECE: calibration error",
    )
    for title in ("head", "top-1", "top-5", "loss", "ECE"):
        table.add_column(title, justify="left" if title == "head" else "right")
    for head, scores in result["heads"].items():
        table.add_row(head, *_score_cells(scores))
    return table


def _score_cells(scores: dict[str, Any]) -> list[str]:
    """Top-1, top-5 and loss over their intervals, and the calibration error."""
    low, high = scores["intervals"]["loss"]
    cells = [f"{scores['loss']:.4f}\n{low:.4f}-{high:.4f}", f"{scores['ece']:.4f}"]
    for name in ("top5", "top1"):
        low, high = scores["intervals"][name]
        cells.insert(0, f"{scores[name]:.2%}\n{100 * low:.2f}-{100 * high:.2f}")
    return cells


def ensemble_table(results: Sequence[dict[str, Any]]) -> Table:
    """Errors of the main head by number of models and crops, each less that of the first row.

    Args:
        results: of the same split, as `evaluate` returns them; sorted here by models, then in their order.

    Source: arXiv 1409.4842, Table 3.
    """
    results = sorted(results, key=lambda result: len(result["runs"]))
    base = results[0]["heads"]["main"]
    table = Table(title=f"{results[0]['images']:,} images of {results[0]['split']}, main head")
    for title in ("models", "crops", "cost", "top-1 error", "to base", "top-5 error", "to base"):
        table.add_column(title, justify="right")
    for number, result in enumerate(results):
        models, crops, scores = len(result["runs"]), result["crops"], result["heads"]["main"]
        cells = [str(models), str(crops), str(models * crops)]
        for name in ("top1", "top5"):
            change = f"{100 * (base[name] - scores[name]):+.2f}" if number else "base"
            cells += [f"{1 - scores[name]:.2%}", change]
        table.add_row(*cells)
    return table


def comparison_table(result: dict[str, Any]) -> Table:
    """Scores of the main heads of two runs with their intervals, from what `compare` returns."""
    title = f"{result['images']:,} images of {result['split']}, main head"
    table = Table(title=title, caption="below: 95 % intervals; ECE: calibration error")
    for title in ("run", "top-1", "top-5", "loss", "ECE"):
        table.add_column(title, justify="left" if title == "run" else "right", overflow="fold")
    for run in result["runs"]:
        table.add_row(run["run"], *_score_cells(run["heads"]["main"]))
    return table


def agreement_table(result: dict[str, Any]) -> Table:
    """How many images both, one or neither of two runs gets right, from what `compare` returns."""
    right = result["right"]
    table = Table(title="images, by which run is right")
    for title in ("", "second right", "second wrong"):
        table.add_column(title, justify="right" if title else "left")
    table.add_row("first right", f"{right['both']:,}", f"{right['first']:,}")
    table.add_row("first wrong", f"{right['second']:,}", f"{right['neither']:,}")
    return table


def verdict(result: dict[str, Any]) -> str:
    """One sentence on whether two runs differ, from what `compare` returns."""
    difference, (low, high) = result["difference"]["top1"], result["difference"]["interval"]
    return (
        f"The second's top-1 less the first's is {100 * difference:+.2f} points ({100 * low:+.2f} to "
        f"{100 * high:+.2f}); the difference is {'' if result['significant'] else 'not '}significant at 5 % "
        f"(McNemar's exact test, p = {result['p']:.4g})."
    )


def class_table(image: str, best: Sequence[tuple[str, float]]) -> Table:
    """The best classes of one image with their probabilities."""
    table = Table(title=escape(image))
    table.add_column("class")
    table.add_column("probability", justify="right")
    for name, probability in best:
        table.add_row(escape(name), f"{probability:.2%}")
    return table

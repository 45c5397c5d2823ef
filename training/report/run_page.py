"""The page of a run: settings, numbers, figures and doubtful images in one HTML file that needs nothing else."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inception_v1 import cost
from inception_v1.atomic_files import write_text
from inception_v1.spec import read_spec
from training.presets import PRESETS
from training.recipe import Recipe
from training.report.page import PAGE, EmbeddedFigure, Section, Table, embed, is_older, render
from training.run_folder import HISTORY, METRICS, REPORT, SPEC, RunFolder, read_history

TEMPLATE = Path(__file__).with_name("run_page.html.jinja")
CURVES = "curves"
# How to read each figure, in the order in which the page shows them.
CAPTIONS = {
    CURVES: "Training is dashed, validation solid. Where validation turns up while training still falls, the network "
    "memorizes.",
    "confusion": "Rows are the true classes, columns the predicted ones; two cells that mirror each other show classes "
    "that are mixed up.",
    "reliability": "Each bar is a bin of confidence; on the diagonal the network is calibrated.",
    "mistakes": "The images whose true class the network finds least probable; wrong predictions are red. Wrong labels "
    "are found here.",
}
OF_SOURCE = ("source", "data_dir", "train_split", "validation_split", "test_split", "weights", "seed")


def write_run_page(run: RunFolder, section: Section | None = None) -> Path:
    """Writes `report/report.html` from what the folder of a run holds, finished or not; nothing is evaluated.

    Args:
        run: the folder.
        section: what the page shows besides.

    Returns:
        Its path.

    Raises:
        UserError: no run, or a damaged file.
    """
    # Imported here: Matplotlib takes half a second, which training need not wait for.
    from training.report import figures

    recipe, metrics = run.recipe(), _metrics(run)
    history = read_history(run / HISTORY) if (run / HISTORY).is_file() else None
    (run / REPORT).mkdir(exist_ok=True)
    if history and is_older(run / REPORT / f"{CURVES}.png", run / HISTORY):
        figures.save(figures.curves(history), run / REPORT / f"{CURVES}.png")
    near = nearest_preset(recipe)
    heads = ("setting", "this run", f"preset {near}")
    own, others = dataclasses.asdict(recipe), dataclasses.asdict(PRESETS[near])
    settings = [(name, _text(value), _text(others[name])) for name, value in own.items()]
    text = render(
        TEMPLATE,
        title=f"{recipe.variant} on {recipe.source}",
        lead=_lead(run, metrics),
        notes=_notes(metrics),
        scores=_scores(metrics["heads"]) if "heads" in metrics else None,
        section=section,
        best=_best(history, metrics["best_epoch"]) if history and metrics.get("best_epoch") else None,
        figures=_figures(run),
        classes=_classes(metrics["classes"]) if "classes" in metrics else None,
        splits=_splits(metrics),
        doubtful=[("Images in two splits", _duplicates(metrics)), ("Unreadable images", _unreadable(metrics))],
        preset=near,
        changed=Table(heads, [row for row in settings if own[row[0]] != others[row[0]]]),
        settings=Table(heads, settings),
        environment=Table((), _environment(run, metrics)),
    )
    write_text(run / REPORT / PAGE, text)
    return run / REPORT / PAGE


def updated_run_page(run: RunFolder) -> Path:
    """The page of a run, written anew where there is none or where what it shows has changed since."""
    page = run / REPORT / PAGE
    shown = [run / name for name in (METRICS, HISTORY)] + [run / REPORT / f"{name}.png" for name in CAPTIONS]
    return write_run_page(run) if any(is_older(page, path) for path in shown) or not page.is_file() else page


def nearest_preset(recipe: Recipe) -> str:
    """The name of the preset that differs from a recipe in the fewest settings, the source's own apart."""

    def differences(name: str) -> int:
        preset = PRESETS[name]
        fields = [field.name for field in dataclasses.fields(Recipe) if field.name not in OF_SOURCE]
        return sum(getattr(preset, field) != getattr(recipe, field) for field in fields)

    return min(PRESETS, key=lambda name: (differences(name), PRESETS[name].source != recipe.source))


def _metrics(run: RunFolder) -> dict[str, Any]:
    """What `metrics.json` holds; of a run that was killed before it had one, that."""
    return run.metrics() if (run / METRICS).is_file() else {"status": "without metrics.json", "epochs": 0, "seconds": 0}


def _lead(run: RunFolder, metrics: Mapping[str, Any]) -> str:
    kept = f"; the best, whose weights are kept, is epoch {metrics['best_epoch']}" if metrics.get("best_epoch") else ""
    count = metrics["epochs"]
    return f"{run.path}: {metrics['status']}, {count} {'epoch' if count == 1 else 'epochs'} done{kept}."


def _notes(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader of the numbers should know first."""
    unreadable = sum(map(len, metrics.get("unreadable", {}).values()))
    notes = (
        [f"{unreadable} unreadable {'image is' if unreadable == 1 else 'images are'} left out"] if unreadable else []
    )
    failure = [metrics["error"]] if "error" in metrics else []
    return [*failure, *notes, *metrics.get("data_warnings", ()), *metrics.get("warnings", {}).values()]


def _scores(heads: Mapping[str, Any]) -> Table:
    rows = []
    for head, scores in heads.items():
        intervals = scores["intervals"]
        shares = [(f"{scores[name]:.2%}", [f"{100 * end:.2f}" for end in intervals[name]]) for name in ("top1", "top5")]
        cells = [*shares, (f"{scores['loss']:.4f}", [f"{end:.4f}" for end in intervals["loss"]])]
        rows.append([head, *(f"{number} ({low}-{high})" for number, (low, high) in cells), f"{scores['ece']:.4f}"])
    return Table(("head", "top-1", "top-5", "loss", "ECE"), rows)


def _best(history: Mapping[str, np.ndarray], epoch: int) -> Table:
    """The numbers of an epoch, by head: of training, of validation, and of validation by the averaged weights."""
    row = int(np.flatnonzero(history["epoch"] == epoch - 1)[0])
    rows = []
    for prefix, title in (("", "training"), ("val_", "validation"), ("val_average_", "validation, averaged weights")):
        for head in ("main", "aux1", "aux2"):
            columns = [history.get(f"{prefix}{head}_{kind}") for kind in ("accuracy", "top5_accuracy", "loss")]
            if columns[0] is not None:
                shown = zip(columns, (".2%", ".2%", ".4f"), strict=True)
                cells = ["" if column is None else format(column[row], form) for column, form in shown]
                rows.append([f"{title}, {head}", *cells])
    return Table((f"epoch {epoch}", "top-1", "top-5", "loss"), rows)


def _figures(run: RunFolder) -> list[EmbeddedFigure]:
    files = {name: run / REPORT / f"{name}.png" for name in CAPTIONS}
    return [embed(name, CAPTIONS[name], file.read_bytes()) for name, file in files.items() if file.is_file()]


def _classes(classes: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [
        (name, *(f"{numbers[key]:.4f}" for key in ("precision", "recall", "f1")), numbers["images"])
        for name, numbers in sorted(classes.items(), key=lambda item: item[1]["f1"])
    ]
    return Table(("class", "precision", "recall", "F1", "images"), rows)


def _splits(metrics: Mapping[str, Any]) -> Table:
    rows = [(field, name) for field, name in metrics.get("splits", {}).items()]
    if "dataset" in metrics:
        rows.insert(0, ("dataset", metrics["dataset"]["name"]))
    if "images" in metrics:
        rows.append(("test images", f"{metrics['images']:,}"))
    return Table((), rows)


def _duplicates(metrics: Mapping[str, Any]) -> Table:
    groups = metrics.get("duplicates", [])
    fields = list(dict.fromkeys(field for group in groups for field in group))
    return Table(fields, [[", ".join(group.get(field, ())) for field in fields] for group in groups])


def _unreadable(metrics: Mapping[str, Any]) -> Table:
    skipped = metrics.get("unreadable", {})
    return Table(("split", "image"), [(field, name) for field, names in skipped.items() for name in names])


def _environment(run: RunFolder, metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if (run / SPEC).is_file():
        counted = cost(read_spec(run / SPEC)).without_aux()
        rows = [("parameters at inference", f"{counted.params:,}"), ("multiply-accumulates", f"{counted.macs:,}")]
    rows += [(name, f"{metrics[name]}") for name in ("command", "strategy", "replicas", "seconds") if name in metrics]
    if known := metrics.get("environment"):
        rows += [("devices", ", ".join(known["devices"])), ("backend", known["backend"]), *known["versions"].items()]
    return rows


def _text(value: object) -> str:
    return "none" if value is None else f"{value}"

"""The pictures and tables of a run and of its evaluation, and the progress they show while they last."""

import csv
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.progress
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.metrics import confusion_matrix

from inception_v1.atomic_files import written_whole
from training.data import pipeline, sources
from training.data.decoding import decode, decode_whole
from training.evaluation.evaluate import (
    CALIBRATION_BINS,
    Predictions,
    by_class,
    calibration,
    calibration_error,
    predicted,
)
from training.recipe import Recipe

HEAD_COLOURS = {"main": "#e45756", "aux1": "#4c78a8", "aux2": "#54a24b"}
WRONG = "#c0392b"
BARS = "#4c78a8"


def write(
    folder: Path, history: Path, predictions: Predictions, pictures: Iterable[np.ndarray], classes: Sequence[str]
) -> None:
    """Writes `curves.png`, `mistakes.png` and what `write_evaluation` writes.

    Args:
        folder: where they go; made if absent.
        history: the run's `history.csv`.
        predictions: of the test split.
        pictures: uint8 `(height, width, channels)` each, of the test split in the order of `predictions`.
        classes: names in label order.
    """
    write_evaluation(folder, predictions, classes)
    save(curves(read_history(history)), folder / "curves.png")
    shown = set(least_certain(predictions))
    images = {index: picture for index, picture in enumerate(pictures) if index in shown}
    save(mistakes(predictions, images, classes), folder / "mistakes.png")


def write_evaluation(folder: Path, predictions: Predictions, classes: Sequence[str]) -> None:
    """Writes `confusion.png`, `reliability.png` and `classes.csv`, all of the main head.

    Args:
        folder: where they go; made if absent.
        predictions: of a split.
        classes: names in label order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save(confusion(predictions, classes), folder / "confusion.png")
    save(reliability(predictions), folder / "reliability.png")
    with written_whole(folder / "classes.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("class", "precision", "recall", "f1", "images"))
        for name, numbers in by_class(predictions, classes).items():
            writer.writerow((name, *numbers.values()))


def write_predictions(path: Path, predictions: Predictions, classes: Sequence[str]) -> None:
    """Writes what the main head says of each image.

    CSV has the columns index, label, predicted and one `p_CLASS` for each class; JSON is a list of {"index", "label",
    "predicted", "probabilities": {class: p}}. Nothing is predicted (an empty cell, null) where two classes tie for the
    highest probability or one is no number. Probabilities have the 9 digits that tell any two float32 apart.

    Args:
        path: a .csv or .json file.
        predictions: of a split.
        classes: names in label order.

    Raises:
        ValueError: another ending, or a folder that does not exist.
    """
    check_file(path, (".csv", ".json"))
    rows = _prediction_rows(predictions, classes)
    with written_whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".csv":
            writer = csv.writer(file)
            writer.writerow(("index", "label", "predicted", *(f"p_{name}" for name in classes)))
            writer.writerows((*known.values(), *probabilities) for known, probabilities in rows)
            return
        for number, (known, probabilities) in enumerate(rows):
            one = known | {"probabilities": dict(zip(classes, probabilities, strict=True))}
            file.write(f"{',' if number else '['}\n{json.dumps(one)}")
        file.write("\n]\n")


def _prediction_rows(predictions: Predictions, classes: Sequence[str]) -> Iterator[tuple[dict, list[float | None]]]:
    probabilities = predictions.by_head["main"]
    pairs = zip(predictions.labels, predicted(probabilities), strict=True)
    for index, (label, best) in enumerate(pairs):
        known = {"index": index, "label": classes[label], "predicted": classes[best] if best >= 0 else None}
        yield known, [None if np.isnan(p) else float(f"{p:.9g}") for p in probabilities[index]]


def check_file(path: Path, suffixes: Sequence[str]) -> None:
    """Raises ValueError where a file cannot be written: another ending than these, or a folder that does not exist."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"Expected a file ending in {' or '.join(suffixes)}; Received: {str(path)!r}.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"Expected a file in a folder that exists; Received: {str(path)!r}.")


def check_folder(path: Path) -> None:
    """Raises ValueError where a folder cannot be made, since it or one above it is a file."""
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ValueError(f"Expected a folder; Received: {str(path)!r}, where {str(existing)!r} is a file.")


def read_history(path: Path) -> dict[str, np.ndarray]:
    """Columns of a `history.csv`. A network with one head logs its loss as "loss" alone: it is "main_loss" here.

    Raises:
        ValueError: no such file.
    """
    if not path.is_file():
        raise ValueError(f"Expected the history.csv of a run; Received: {str(path)!r}, which is no file.")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    history = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    for prefix in ("", "val_"):
        history.setdefault(f"{prefix}main_loss", history[f"{prefix}loss"])
    return history


def curves(history: dict[str, np.ndarray]) -> Figure:
    """Loss and accuracy of each head over the epochs: training dashed, validation solid."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for head, colour in HEAD_COLOURS.items():
            for prefix, style, name in (("", "--", "training"), ("val_", "-", "validation")):
                values = history.get(f"{prefix}{head}_{kind}")
                if values is not None:
                    axes.plot(history["epoch"] + 1, values, style, color=colour, label=f"{head} {name}")
        axes.set_title(kind)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.axes[0].set_yscale("log")
    return figure


def compared_curves(histories: Mapping[str, dict[str, np.ndarray]]) -> Figure:
    """Validation loss and top-1 of the main head of several runs over the epochs, a dot on the epoch that each kept.

    Of a run with a Polyak average these are the average's.

    Args:
        histories: name of a run to what `read_history` returns.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    titles = {"loss": "validation loss", "accuracy": "validation top-1"}
    for axes, (kind, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for number, (name, history) in enumerate(histories.items()):
            kept = "val_average_main_" if "val_average_main_accuracy" in history else "val_main_"
            epochs, accuracy = history["epoch"] + 1, history[f"{kept}accuracy"]
            best = len(accuracy) - 1 - int(np.argmax(accuracy[::-1]))  # of equals the latest, as `KeepBest` does
            values = history[f"{kept}{kind}"]
            # The first is wider, so that it shows where both run together.
            axes.plot(epochs, values, color=f"C{number}", linewidth=2.5 - min(number, 1), label=name)
            axes.plot(epochs[best], values[best], "o", color=f"C{number}", markersize=8 - 3 * min(number, 1))
        axes.set_title(f"{title}, main head")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.axes[0].set_yscale("log")
    figure.axes[1].legend(fontsize=8, title="dot: the epoch kept", title_fontsize=8)
    return figure


def confusion(predictions: Predictions, classes: Sequence[str]) -> Figure:
    """Counts of predicted against true classes of the main head, coloured by share of the true class."""
    labels, seen_as = predictions.labels, predicted(predictions.by_head["main"])
    counts = confusion_matrix(labels, seen_as, labels=range(len(classes)))
    share = counts / np.maximum(np.bincount(labels, minlength=len(classes)), 1)[:, None]
    side = float(np.clip(3 + 0.45 * len(classes), 5, 16))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= 50:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 25:
        for row, column in zip(*counts.nonzero(), strict=True):
            shade = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=shade)
    right = counts.trace()
    axes.set_title(f"{right:,} of {len(labels):,} right ({right / len(labels):.2%})")
    return figure


def reliability(predictions: Predictions) -> Figure:
    """The main head's accuracy at each confidence beside that confidence, and how many images have it.

    Source: Guo et al. 2017, arXiv 1706.04599, figure 1.
    """
    probabilities, labels = predictions.by_head["main"], predictions.labels
    count, confidence, accuracy = calibration(probabilities, labels)
    used, width = count > 0, 1 / CALIBRATION_BINS
    centre = (np.arange(CALIBRATION_BINS) + 0.5) * width
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot((0, 1), (0, 1), "--", color="grey", linewidth=1, label="perfectly calibrated")
    top.bar(centre[used], accuracy[used], width, color=BARS, edgecolor="white", label="accuracy")
    gap = (confidence - accuracy)[used]
    top.bar(
        centre[used],
        gap,
        width,
        accuracy[used],
        facecolor="none",
        edgecolor=WRONG,
        hatch="///",
        label="gap to the mean confidence",
    )
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    top.legend(fontsize=8, loc="upper left")
    error = calibration_error(probabilities, labels)
    top.set_title(f"expected calibration error {error:.2%} over {len(labels):,} images", fontsize=10)
    bottom.bar(centre, count, width, color=BARS, edgecolor="white")
    bottom.set(yscale="symlog", ylabel="images", xlabel="confidence: probability of the best class")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def least_certain(predictions: Predictions, most: int = 24) -> list[int]:
    """Indices of the images whose own class got the least probability from the main head, worst first."""
    own = predictions.by_head["main"][np.arange(len(predictions.labels)), predictions.labels]
    return np.argsort(np.nan_to_num(own, nan=-1.0), kind="stable")[:most].tolist()


def mistakes(predictions: Predictions, images: Mapping[int, np.ndarray], classes: Sequence[str]) -> Figure:
    """The least certain images, worst first; those predicted wrong are framed in red.

    Args:
        predictions: of the split.
        images: index to uint8 `(height, width, channels)`, at least of `least_certain`.
        classes: names in label order.
    """
    probabilities, labels = predictions.by_head["main"], predictions.labels
    own = probabilities[np.arange(len(labels)), labels]
    best = predicted(probabilities)
    worst = least_certain(predictions)
    rows = -(-len(worst) // 8)
    figure = Figure(figsize=(14, 2.2 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, 8, squeeze=False).flat
    for axes in grid:
        axes.set_axis_off()
    for axes, index in zip(figure.axes, worst, strict=False):
        wrong = best[index] != labels[index]
        name = classes[best[index]] if best[index] >= 0 else "no class"
        seen_as = f"\nseen as {name} {probabilities[index].max():.1%}" if wrong else ""
        _show(axes, images[index], f"{classes[labels[index]]} {own[index]:.1%}{seen_as}")
        if wrong:
            axes.title.set_color(WRONG)
            _frame(axes, WRONG)
    count = int((best != labels).sum())
    figure.suptitle(f"{count} of {len(labels):,} wrong; least probable first, wrong ones in red", fontsize=10)
    return figure


def augmentation(recipe: Recipe, rows: int, columns: int) -> Figure:
    """What training sees: a training picture a row, on the left as it is, then `columns` draws of its augmentation.

    With the paper's augmentation each draw has a colour, and its crop is drawn on the picture in it. Pictures that
    cannot be read are left out, as in training.

    Raises:
        ValueError: the source cannot be used.
    """
    builder, splits = sources.load(recipe)
    channels = pipeline.image_channels(builder)
    figure = Figure(figsize=(1.7 * (columns + 1), 1.75 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns + 1, squeeze=False)
    examples = pipeline.encoded_pictures(builder, splits.train).map(
        lambda encoded, label: (encoded, tf.cast(decode_whole(encoded, channels), tf.uint8), label)
    )
    for row, (encoded, picture, label) in enumerate(examples.ignore_errors().take(rows)):
        source = encoded if recipe.paper_augment else decode(encoded, recipe.image_size, channels)
        _show(grid[row, 0], picture.numpy(), sources.class_names(builder)[int(label)])
        for column in range(columns):
            seed = tf.constant([recipe.seed + row, column])
            seen = pipeline.augmented(source, seed, recipe, channels).numpy().round().astype("uint8")
            _show(grid[row, column + 1], seen, "")
            if recipe.paper_augment:
                _frame(grid[row, column + 1], f"C{column % 10}")
                top, left, height, width = pipeline.window(picture, seed).numpy()
                box = Rectangle((left, top), width, height, fill=False, edgecolor=f"C{column % 10}", linewidth=1.5)
                grid[row, 0].add_patch(box)
    for axes in grid.flat:
        if not axes.images:
            axes.set_axis_off()
    figure.suptitle(f"{recipe.source}: as it is, and as training sees it at {recipe.image_size} px", fontsize=10)
    return figure


def _show(axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture[..., 0] if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def _frame(axes, colour: str) -> None:
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2)


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a PNG file, whole or not at all."""
    with written_whole(Path(path)) as part:
        figure.savefig(part, format="png", dpi=110)


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
        results: of the same split, as `evaluate` returns them; sorted here by models, then in the order given.

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


def class_table(picture: str, best: Sequence[tuple[str, float]]) -> Table:
    """The best classes of one picture with their probabilities."""
    table = Table(title=picture)
    table.add_column("class")
    table.add_column("probability", justify="right")
    for name, probability in best:
        table.add_row(name, f"{probability:.2%}")
    return table


def track(batches: tf.data.Dataset) -> Iterable:
    """The batches, with a bar on standard error while they last."""
    return rich.progress.track(batches, "evaluating", int(batches.cardinality()), console=Console(stderr=True))


class ShowProgress(keras.callbacks.Callback):
    """A bar over the steps of the run with one line per finished epoch.

    Args:
        console: where to write; on anything but a terminal the lines alone appear.
        epochs: of the run.
        steps: in an epoch.
    """

    def __init__(self, console: Console, epochs: int, steps: int):
        super().__init__()
        self._epochs, self._steps = epochs, steps
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._console = console

    def on_train_begin(self, logs=None):
        self._progress.start()
        self._task = self._progress.add_task("tracing the first step", total=self._epochs * self._steps)

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self._progress.update(self._task, advance=1, description=f"loss {logs['loss']:.4f}")

    def on_epoch_end(self, epoch, logs=None):
        shown = {"loss": "loss", "main_accuracy": "top-1", "val_loss": "val loss", "val_main_accuracy": "val top-1"}
        parts = [f"{title} {logs[key]:.4f}" for key, title in shown.items() if key in logs]
        seconds = time.monotonic() - self._began
        self._console.print(
            f"epoch {epoch + 1:3d}/{self._epochs}  {'  '.join(parts)}  {seconds:.1f} s", highlight=False, soft_wrap=True
        )

    def on_train_end(self, logs=None):
        self._progress.stop()

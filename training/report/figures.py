"""Figures of a run and of its evaluation."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from inception_v1.atomic_files import atomic_file
from training.data import pipeline, sources
from training.data.decoding import decode, decode_whole
from training.evaluation.metrics import (
    CALIBRATION_BINS,
    Predictions,
    calibration,
    calibration_error,
    predicted_classes,
)
from training.recipe import Recipe

HEAD_COLORS = {"main": "#e45756", "aux1": "#4c78a8", "aux2": "#54a24b"}
WRONG = "#c0392b"
BARS = "#4c78a8"


def curves(history: dict[str, np.ndarray]) -> Figure:
    """Loss and accuracy of each head over the epochs: training dashed, validation solid."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for head, color in HEAD_COLORS.items():
            for prefix, style, name in (("", "--", "training"), ("val_", "-", "validation")):
                values = history.get(f"{prefix}{head}_{kind}")
                if values is not None:
                    axes.plot(history["epoch"] + 1, values, style, color=color, label=f"{head} {name}")
        axes.set_title(kind)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.axes[0].set_yscale("log")
    return figure


def compared_curves(histories: Mapping[str, dict[str, np.ndarray]]) -> Figure:
    """Validation loss and top-1 of the main head of several runs over the epochs, a dot on the epoch that each kept.

    Of a run with a moving average of the weights these are the average's.

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
    """Counts of predicted against true classes of the main head, colored by fraction of the true class."""
    from sklearn.metrics import confusion_matrix  # imported here, as in `metrics`

    labels, seen_as = predictions.labels, predicted_classes(predictions.by_head["main"])
    counts = confusion_matrix(labels, seen_as, labels=range(len(classes)))
    fraction = counts / np.maximum(np.bincount(labels, minlength=len(classes)), 1)[:, None]
    side = float(np.clip(3 + 0.45 * len(classes), 5, 16))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= 50:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 25:
        for row, column in zip(*counts.nonzero(), strict=True):
            shade = "white" if fraction[row, column] > 0.5 else "black"
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
    center = (np.arange(CALIBRATION_BINS) + 0.5) * width
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot((0, 1), (0, 1), "--", color="gray", linewidth=1, label="perfectly calibrated")
    top.bar(center[used], accuracy[used], width, color=BARS, edgecolor="white", label="accuracy")
    gap = (confidence - accuracy)[used]
    top.bar(
        center[used],
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
    bottom.bar(center, count, width, color=BARS, edgecolor="white")
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
    best = predicted_classes(probabilities)
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
    """What training sees: a training image a row, on the left as it is, then `columns` draws of its augmentation.

    With the paper's augmentation each draw has a color, and its crop is drawn on the image in it. Images that
    cannot be read are left out, as in training.

    Raises:
        UserError: the source cannot be used.
    """
    split = sources.load(recipe).train
    channels, stored, names = split.channels, split.stored_shape, split.classes
    figure = Figure(figsize=(1.7 * (columns + 1), 1.75 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns + 1, squeeze=False)
    examples = split.encoded_images().map(
        lambda encoded, label: (encoded, tf.cast(decode_whole(encoded, channels, stored), tf.uint8), label)
    )
    for row, (encoded, image, label) in enumerate(examples.ignore_errors().take(rows)):
        source = encoded if recipe.paper_augment else decode(encoded, recipe.image_size, channels, stored)
        _show(grid[row, 0], image.numpy(), names[int(label)])
        for column in range(columns):
            seed = tf.constant([recipe.seed + row, column])
            seen = pipeline.augment_image(source, seed, recipe, channels).numpy().round().astype("uint8")
            _show(grid[row, column + 1], seen, "")
            if recipe.paper_augment:
                _frame(grid[row, column + 1], f"C{column % 10}")
                top, left, height, width = pipeline.crop_window(image, seed).numpy()
                box = Rectangle((left, top), width, height, fill=False, edgecolor=f"C{column % 10}", linewidth=1.5)
                grid[row, 0].add_patch(box)
    for axes in grid.flat:
        if not axes.images:
            axes.set_axis_off()
    figure.suptitle(f"{recipe.source}: as it is, and as training sees it at {recipe.image_size} px", fontsize=10)
    return figure


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def _frame(axes: Axes, color: str) -> None:
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=2)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a PNG file, whole or not at all. Characters that no installed font has are boxes."""
    texts = figure.findobj(Text)
    families = font_families("".join(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily(families)
    with atomic_file(Path(path)) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # names of classes are the user's
        figure.savefig(part, format="png", dpi=110)


def font_families(text: str) -> list[str]:
    """Matplotlib's default fonts, then those installed that have the characters that its first one lacks."""
    families = list(rcParams["font.family"])
    missing = set(text) - {"\n"}
    for entry in [FontEntry(findfont(FontProperties())), *fontManager.ttflist]:
        if not missing:
            break
        try:
            font = FT2Font(entry.fname)
        except (OSError, RuntimeError):  # removed since matplotlib listed it, or not for this release of FreeType
            continue
        found = {character for character in missing if font.get_char_index(ord(character))} if font.scalable else set()
        missing -= found
        if found and entry.name and entry.name not in families:
            families.append(entry.name)
    return families

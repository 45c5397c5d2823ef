"""The files of a run's report, and those of an evaluation."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inception_v1.atomic_files import atomic_file, check_file
from training.evaluation.metrics import Predictions, by_class, predicted_classes
from training.run_folder import HISTORY, REPORT, RunFolder, read_history


def write_run_report(
    run: RunFolder, predictions: Predictions, images: Iterable[np.ndarray], classes: Sequence[str]
) -> None:
    """Writes `curves.png`, `mistakes.png` and what `write_evaluation` writes into the run's `report`.

    Args:
        run: its folder.
        predictions: of the test split.
        images: uint8 `(height, width, channels)` each, of the test split in the order of `predictions`.
        classes: names in label order.
    """
    # Imported here: Matplotlib takes half a second, which training need not wait for.
    from training.report import figures

    folder = run / REPORT
    write_evaluation(folder, predictions, classes)
    figures.save(figures.curves(read_history(run / HISTORY)), folder / "curves.png")
    shown = set(figures.least_certain(predictions))
    kept = {index: image for index, image in enumerate(images) if index in shown}
    figures.save(figures.mistakes(predictions, kept, classes), folder / "mistakes.png")


def write_evaluation(folder: Path, predictions: Predictions, classes: Sequence[str]) -> None:
    """Writes `confusion.png`, `reliability.png` and `classes.csv`, all of the main head.

    Args:
        folder: made if absent.
        predictions: of a split.
        classes: names in label order.
    """
    from training.report import figures  # imported here, as above

    folder.mkdir(parents=True, exist_ok=True)
    figures.save(figures.confusion(predictions, classes), folder / "confusion.png")
    figures.save(figures.reliability(predictions), folder / "reliability.png")
    with atomic_file(folder / "classes.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("class", "precision", "recall", "f1", "images"))
        for name, numbers in by_class(predictions, classes).items():
            writer.writerow((name, *numbers.values()))


def write_predictions(path: Path, predictions: Predictions, classes: Sequence[str]) -> None:
    """Writes the main head's predictions, image by image.

    CSV has the columns index, label, predicted and one `p_CLASS` for each class; JSON is a list of {"index", "label",
    "predicted", "probabilities": {class: p}}. Nothing is predicted (an empty cell, null) where two classes tie for the
    highest probability or one is not a number. Probabilities have the 9 digits that distinguish any two float32.

    Args:
        path: a .csv or .json file.
        predictions: of a split.
        classes: names in label order.

    Raises:
        UserError: another ending, or a folder that does not exist.
    """
    check_file(path, (".csv", ".json"))
    rows = _prediction_rows(predictions, classes)
    with atomic_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".csv":
            writer = csv.writer(file)
            writer.writerow(("index", "label", "predicted", *(f"p_{name}" for name in classes)))
            writer.writerows((*known.values(), *probabilities) for known, probabilities in rows)
            return
        for number, (known, probabilities) in enumerate(rows):
            one = known | {"probabilities": dict(zip(classes, probabilities, strict=True))}
            file.write(f"{',' if number else '['}\n{json.dumps(one)}")
        file.write("\n]\n")


def _prediction_rows(
    predictions: Predictions, classes: Sequence[str]
) -> Iterator[tuple[dict[str, Any], list[float | None]]]:
    probabilities = predictions.by_head["main"]
    pairs = zip(predictions.labels, predicted_classes(probabilities), strict=True)
    for index, (label, best) in enumerate(pairs):
        known = {"index": index, "label": classes[label], "predicted": classes[best] if best >= 0 else None}
        yield known, [None if np.isnan(p) else float(f"{p:.9g}") for p in probabilities[index]]

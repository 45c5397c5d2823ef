"""The classes of image files as a file."""

import csv
import json
from pathlib import Path

from inception_v1.atomic_files import atomic_file, check_file
from training.serving_client import Classes


def write_image_classes(path: Path, classes: Classes) -> None:
    """Writes the best classes of image files, whole or not at all.

    CSV has one row an image: `file`, `class` and `probability` of the best class, then `class_2`, `probability_2` and
    so on. JSON is {file: [[class, probability], ...]}. Names of files that are no UTF-8 keep their bytes in CSV.

    Args:
        path: a .csv or .json file.
        classes: path of an image to its best classes.

    Raises:
        UserError: another ending, or a folder that does not exist.
    """
    check_file(path, (".csv", ".json"))
    most = max(map(len, classes.values()), default=0)
    numbers = ["", *(f"_{place}" for place in range(2, most + 1))][:most]
    heads = ["file", *(f"{name}{number}" for number in numbers for name in ("class", "probability"))]
    with atomic_file(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        if path.suffix.lower() == ".json":
            file.write(json.dumps(classes, indent=2) + "\n")
            return
        writer = csv.writer(file)
        writer.writerow(heads)
        writer.writerows((name, *(cell for pair in best for cell in pair)) for name, best in classes.items())

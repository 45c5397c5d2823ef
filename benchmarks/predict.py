"""Throughput of `googlenet predict` on a folder beside `googlenet evaluate` on its images: python -m benchmarks predict

JPEGs of 500x375 pixels, as in `benchmarks input`, are read from single files, decoded and classified at 224x224 by a
batch-normalized network of a tenth of the width, with which decoding takes most of the time. Both load the run first,
in alternating rounds.
"""

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.input_pipeline import IMAGES, write_folder
from benchmarks.results import ResultTable
from benchmarks.rounds import Make, Work, alternate, median, spread
from benchmarks.trained_runs import write_untrained

NAME = "predict"
WIDTH = 0.1
EVALUATE, PREDICT = "evaluate", "predict"


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    return results.run(NAME, __doc__, arguments, 7, measure, tables)


def measure(rounds: int) -> dict[str, Any]:
    """Rates of both on the same files."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder, "images"))
        makers: dict[str, Make] = {
            EVALUATE: functools.partial(evaluation, Path(folder)),
            PREDICT: functools.partial(prediction, Path(folder)),
        }
        return {"about": results.about(), "rounds": rounds, "forms": alternate(makers, rounds)}


def tables(result: dict[str, Any]) -> list[ResultTable]:
    baseline = median(result["forms"][EVALUATE])
    rows = [
        [name, f"{median(form):.0f}", spread(form, 0), f"{median(form) / baseline:.2f}"]
        for name, form in result["forms"].items()
    ]
    about = results.machine(result["about"], "tensorflow", "keras")
    title = f"{IMAGES} JPEGs of 500x375 by a network of {WIDTH} of the width, {result['rounds']} rounds; {about}"
    return [ResultTable(title, ["command", "images/s", "range", "ratio"], rows)]


def evaluation(folder: Path) -> Work:
    """`evaluate` without the search for unreadable images and without the numbers."""
    from training.evaluation.evaluate import predict_split
    from training.run_images import load_splits

    run = make_run(folder / EVALUATE, folder / "images")
    test = load_splits(run).test
    return lambda: len(predict_split(run, test, 1).labels)


def prediction(folder: Path) -> Work:
    from training.data.image_files import image_files
    from training.evaluation.classify import classify

    run, files = make_run(folder / PREDICT, folder / "images"), image_files([str(folder / "images" / "test")])
    return lambda: len(classify(run.path, files))


def make_run(folder: Path, images: Path) -> Any:
    """A run whose network is not trained."""
    from training.recipe import Recipe

    recipe = Recipe(source=f"folder:{images}", width_multiplier=WIDTH)
    return write_untrained(folder, recipe, 3, ["a", "b"])

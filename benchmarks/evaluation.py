"""Throughput of `googlenet evaluate` beside the bare forward pass: python -m benchmarks evaluation

The test split of Fashion-MNIST by the network of the recipe `fashion`, and a folder of JPEGs of 500x375 pixels by the
whole network of the recipe's family at 224x224, both in float32. The bare forward pass takes one batch of the same size
from memory again and again, traced by `tf.function`. Networks are loaded and traced before the clock starts, and both
take turns. Fashion-MNIST comes from TensorFlow Datasets or Debian's `dataset-fashion-mnist`. About 4 minutes on 2
cores.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import results
from benchmarks.input_pipeline import write_folder
from benchmarks.results import ResultTable
from benchmarks.rounds import Make, Work, alternate, median, spread

if TYPE_CHECKING:
    from training.recipe import Recipe

NAME = "evaluation"
BARE, EVALUATE = "bare forward pass", "evaluate"
FASHION, FOLDER = "recipe fashion, Fashion-MNIST", "whole network, JPEGs of 500x375"
COPIES = 4  # of each JPEG, so that a pass takes seconds
BAR = 0.9


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    return results.run(NAME, __doc__, arguments, 7, measure, tables)


def measure(rounds: int) -> dict[str, Any]:
    """Rates of both, by the images that they classify."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), COPIES)
        cases = {FASHION: fashion_recipe(), FOLDER: folder_recipe(Path(folder))}
        measured = {}
        for name, recipe in cases.items():
            makers: dict[str, Make] = {
                BARE: functools.partial(forward_pass, recipe),
                EVALUATE: functools.partial(evaluation, recipe),
            }
            measured[name] = alternate(makers, rounds)
    return {"about": results.about(), "rounds": rounds, "cases": measured}


def tables(result: dict[str, Any]) -> list[ResultTable]:
    rows = []
    for case, forms in result["cases"].items():
        bare = median(forms[BARE])
        rows += [
            [case, name, f"{median(form):.0f}", spread(form, 0), f"{median(form) / bare:.2f}"]
            for name, form in forms.items()
        ]
    title = f"Evaluation, float32, medians of {result['rounds']} rounds (goal: {BAR})"
    about = results.machine(result["about"], "tensorflow", "keras")
    return [ResultTable(f"{title}; {about}", ["images", "form", "images/s", "range", "of bare"], rows)]


def fashion_recipe() -> "Recipe":
    from training.presets import PRESETS

    return dataclasses.replace(PRESETS["fashion"], precision="float32")


def folder_recipe(images: Path) -> "Recipe":
    from training.recipe import Recipe

    return Recipe(source=f"folder:{images}")


def evaluation(recipe: "Recipe") -> Work:
    """What `evaluate` does with the images, without the search for unreadable ones and without the numbers."""
    from training.data.pipeline import Batches
    from training.evaluation.predictor import Predictor

    split = find_test_split(recipe)
    predictor = Predictor(make_network(recipe, split))
    return lambda: sum(len(labels) for _, labels in predictor(Batches(split, recipe).evaluation()))  # nothing is cached


def forward_pass(recipe: "Recipe") -> Work:
    """As many whole batches as the test split has."""
    import tensorflow as tf

    from training.data.pipeline import Batches

    split = find_test_split(recipe)
    model = make_network(recipe, split)
    images, _ = next(iter(Batches(split, recipe).evaluation()))
    count = split.total // len(images)

    @tf.function
    def forward(images: Any) -> Any:
        return model(images, training=False)

    def work() -> int:
        for _ in range(count):
            for probabilities in forward(images).values():
                probabilities.numpy()
        return count * len(images)

    return work


def find_test_split(recipe: "Recipe") -> Any:
    from training.run_images import choose_splits

    return choose_splits(recipe).test


def make_network(recipe: "Recipe", split: Any) -> Any:
    """The recipe's network, not trained."""
    from inception_v1 import GoogLeNet
    from training.task import network_for

    return GoogLeNet(**network_for(recipe, split).to_dict())

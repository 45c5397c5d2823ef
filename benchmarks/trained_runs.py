"""Runs that benchmarks of accuracy train, each in a folder of its own, so that an interrupted benchmark resumes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inception_v1.spec import Spec

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.run_folder import RunFolder

RECIPE = (
    "epochs",
    "width_multiplier",
    "image_size",
    "train_split",
    "validation_split",
    "precision",
)  # what flags may change of it
MULTIPLIERS = np.arange(0.995, 0.02, -0.005)  # of the width, for networks of the same multiply-accumulates


def add_flags(parser: Any, out: str) -> None:
    """The flags that say which runs are trained, and where."""
    parser.add_argument("--recipe", default="fashion", help="Recipe of the runs, a preset or a .json file.")
    parser.add_argument("--epochs", type=int, help="Epochs of the runs; none: the recipe's.")
    parser.add_argument("--width-multiplier", type=float, help="Of the networks; none: the recipe's.")
    parser.add_argument("--image-size", type=int, help="Height and width of the images; none: the recipe's.")
    parser.add_argument("--train-split", help="Images to train on; none: the recipe's.")
    parser.add_argument("--validation-split", help="Images that choices rest on; none: the recipe's.")
    parser.add_argument("--precision", help="Of the arithmetic; none: the recipe's.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of the runs.")
    parser.add_argument("--out", type=Path, default=Path("runs") / out, help="Folder of the runs.")


def changed_recipe(options: Any) -> "Recipe":
    """The recipe of the flags."""
    from training.presets import preset

    changes = {name: getattr(options, name) for name in RECIPE}
    return dataclasses.replace(preset(options.recipe), **{k: v for k, v in changes.items() if v is not None})


def describe_runs(options: Any, recipe: "Recipe") -> str:
    """What distinguishes the runs from those of the preset, in one line."""
    changes = [f"{name} {getattr(recipe, name)}" for name in RECIPE if getattr(options, name) is not None]
    return ", ".join([f"recipe {options.recipe}", *changes])


def train_or_read(folder: Path, recipe: "Recipe", spec: Spec | None = None) -> dict[str, Any]:
    """Numbers of a run, which is trained where it has not been: "params" and "macs" without the auxiliary heads,
    "validation" and "top1" from 0 to 1, and "train_seconds"."""
    from inception_v1 import cost
    from inception_v1.spec import read_spec
    from training.run_folder import METRICS, SPEC, RunFolder
    from training.train import train

    run = RunFolder(folder)
    if not ((run / METRICS).is_file() and run.metrics()["status"] == "finished"):
        train(recipe, folder, spec=spec)
    counted = cost(read_spec(run / SPEC)).without_aux()
    return {"params": counted.params, "macs": counted.macs} | accuracies(folder)


def write_untrained(folder: Path, recipe: "Recipe", channels: int, classes: list[str]) -> "RunFolder":
    """A run whose network is not trained, of images with so many channels."""
    from inception_v1 import GoogLeNet
    from training.run_folder import BEST, RunFolder
    from training.task import recipe_spec

    spec, run = recipe_spec(recipe, channels, len(classes)), RunFolder(folder)
    run.create(recipe, spec, classes)
    GoogLeNet(**spec.to_dict()).save(run / BEST)
    return run


def accuracies(folder: Path) -> dict[str, Any]:
    """The "validation" and "top1" accuracy of a run, and its "train_seconds"."""
    from training.run_folder import HISTORY, RunFolder, read_history

    run = RunFolder(folder)
    metrics = run.metrics()
    return {
        "validation": float(np.nanmax(read_history(run / HISTORY)["val_main_accuracy"])),
        "top1": metrics["heads"]["main"]["top1"],
        "train_seconds": metrics["seconds"],
    }


def mean(runs: Sequence[dict[str, Any]], key: str) -> float:
    """The mean of a number over runs that differ by their seed."""
    return float(np.mean([run[key] for run in runs]))


def spread(runs: Sequence[dict[str, Any]], key: str, scale: float = 100) -> str:
    """The mean and standard deviation over runs that differ by their seed; empty where no run has the number."""
    return mean_and_deviation([scale * run[key] for run in runs if run.get(key) is not None])


def mean_and_deviation(values: Sequence[float]) -> str:
    """The mean and standard deviation of numbers: of one number itself, of none nothing."""
    if not values:
        return ""
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")


def describe_seeds(count: int) -> str:
    """What the numbers of a table are, of so many seeds."""
    return "of one seed" if count == 1 else f"mean and standard deviation of {count} seeds"


def difference(runs: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> str:
    """Mean and standard deviation of top-1 less that of others of the same seeds, in points."""
    return mean_and_deviation([100 * (run["top1"] - other["top1"]) for run, other in zip(runs, others, strict=True)])


def narrow(spec: Spec, most: int) -> Spec:
    """The widest network with a smaller width multiplier that needs at most so many multiply-accumulates."""
    smaller = [
        dataclasses.replace(spec, width_multiplier=round(float(spec.width_multiplier * m), 6)) for m in MULTIPLIERS
    ]
    return next(each for each in smaller if macs(each) <= most)


def macs(spec: Spec) -> int:
    """Multiply-accumulates of a network at inference."""
    from inception_v1 import cost

    return cost(spec).without_aux().macs

"""What slimming costs in accuracy, by criterion, allocation, teacher and budget: python -m benchmarks slim

Runs of one recipe are trained, one for each seed, and slimmed: by every criterion at one budget, then by the best at
others, with and without a teacher, by uniform allocation, and with the same widths trained from random weights for as
many epochs as both together. A benchmark that was interrupted resumes.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.results import ResultTable
from tuning.slim_settings import SLIMMING

NAME = "slim"
KEEP = 0.4  # of the multiply-accumulates, for the comparison of criteria
SCRATCH = "same widths from random weights"


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__)
    parser.add_argument("--recipe", default="fashion", help="Recipe of the runs, a preset or a .json file.")
    parser.add_argument("--epochs", type=int, help="Epochs of the runs; none: the recipe's.")
    parser.add_argument("--width-multiplier", type=float, help="Of the networks; none: the recipe's.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="Seeds of the runs.")
    parser.add_argument("--criteria", nargs="+", help="Criteria to compare; none: all.")
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.6, 0.2], help="Other budgets.")
    parser.add_argument("--images", type=int, default=256, help="Images that channels are ranked on.")
    parser.add_argument("--multiple", type=int, default=8, help="Of the widths.")
    parser.add_argument("--out", type=Path, default=Path("runs/slim"), help="Folder of the runs.")
    options = parser.parse_args(arguments)
    result = measure(options)
    results.save(NAME, result)
    return tables(result)


def measure(options: Any) -> dict[str, Any]:
    """Test accuracies of every way to slim, for each seed."""
    from training.presets import preset
    from tuning.criteria import CRITERIA

    changes = {"epochs": options.epochs, "width_multiplier": options.width_multiplier}
    recipe = dataclasses.replace(preset(options.recipe), **{k: v for k, v in changes.items() if v is not None})
    common = {"keep_macs": KEEP, "images": options.images, "multiple": options.multiple}
    ways = {
        f"{criterion}, sensitivity, teacher": {"criterion": criterion} for criterion in options.criteria or CRITERIA
    }
    found: dict[str, Any] = {"about": results.about(), "recipe": options.recipe, "epochs": recipe.epochs, "ways": {}}
    found |= {"width_multiplier": recipe.width_multiplier, "settings": common}
    for seed in options.seeds:
        source = options.out / f"source-{seed}"
        finished(source, dataclasses.replace(recipe, seed=seed))
        for name, way in ways.items():
            _add(found, name, slimmed(source, options.out, seed, name, common | way))
    best = max(ways, key=lambda name: np.mean([one["validation"] for one in found["ways"][name]]))
    more: dict[str, dict[str, Any]] = {
        best.replace("sensitivity", "uniform"): {"allocation": "uniform"},
        best.replace("teacher", "no teacher"): {"teacher": False},
    }
    more |= {f"{best}, {keep:.0%} of the MACs": {"keep_macs": keep} for keep in options.budgets}
    for seed in options.seeds:
        source = options.out / f"source-{seed}"
        for name, way in more.items():
            _add(found, name, slimmed(source, options.out, seed, name, common | ways[best] | way))
        _add(found, SCRATCH, from_scratch(_folder(options.out, seed, best), options.out / f"scratch-{seed}"))
    return found


def _add(found: dict[str, Any], name: str, numbers: dict[str, Any]) -> None:
    found["ways"].setdefault(name, []).append(numbers)


def _folder(out: Path, seed: int, name: str) -> Path:
    return out / f"{name.replace(', ', '-').replace(' ', '_').replace('%', '')}-{seed}"


def finished(folder: Path, recipe: Any, **arguments: Any) -> dict[str, Any]:
    """The numbers of a run, which is trained where it has not been."""
    from training.run_folder import METRICS, RunFolder
    from training.train import train

    run = RunFolder(folder)
    if not ((run / METRICS).is_file() and run.metrics()["status"] == "finished"):
        train(recipe, folder, **arguments)
    return run.metrics()


def slimmed(source: Path, out: Path, seed: int, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a slimmed run, with its best validation accuracy, and of its source."""
    import tuning
    from training.run_folder import HISTORY, RunFolder, read_history
    from tuning.report.slimming import slimming_of

    run = RunFolder(_folder(out, seed, name))
    if not (run / SLIMMING).is_file() or "top1" not in slimming_of(run)["networks"]["slimmed"]:
        tuning.slim(source, run.path, tuning.SlimSettings(**settings))
    networks = slimming_of(run)["networks"]
    numbers = {key: networks["slimmed"].get(key) for key in ("params", "macs", "before", "top1", "seconds")}
    numbers["validation"] = float(np.nanmax(read_history(run / HISTORY)["val_main_accuracy"]))
    return numbers | {f"source_{key}": networks["source"].get(key) for key in ("params", "macs", "top1", "seconds")}


def from_scratch(run: Path, folder: Path) -> dict[str, Any]:
    """The numbers of a network with the widths of a slimmed one, trained as long as the source and it together."""
    from inception_v1 import cost
    from inception_v1.spec import read_spec
    from training.run_folder import RunFolder

    source = json.loads((run / SLIMMING).read_text("utf-8"))["source"]
    recipe, tuned = RunFolder(source).recipe(), RunFolder(run).recipe()
    longer = dataclasses.replace(recipe, epochs=recipe.epochs + tuned.epochs)
    spec = read_spec(run / "spec.json")
    metrics, counted = finished(folder, longer, spec=spec), cost(spec).without_aux()
    return {"params": counted.params, "macs": counted.macs, "top1": metrics["heads"]["main"]["top1"]}


def tables(result: dict[str, Any]) -> list[ResultTable]:
    """Each way to slim with its mean over the seeds, below the unslimmed networks."""
    first = next(iter(result["ways"].values()))
    rows = [
        _row(
            "unslimmed", [{key: one[f"source_{key}"] for key in ("params", "macs", "top1", "seconds")} for one in first]
        )
    ]
    rows += [_row(name, seeds) for name, seeds in result["ways"].items()]
    about = results.machine(result["about"], "tensorflow", "keras", "onnxruntime")
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    title = (
        f"Recipe {result['recipe']}, {result['epochs']} epochs, {result['width_multiplier']} of the width; {settings}; "
        f"{len(first)} seeds, test top-1 in %, the best criterion chosen on validation; {about}"
    )
    heads = [
        "criterion, allocation, teacher",
        "parameters",
        "MACs",
        "before fine-tuning",
        "after",
        "ONNX ms, one image",
    ]
    return [ResultTable(title, heads, rows)]


def _row(name: str, seeds: list[dict[str, Any]]) -> list[str]:
    params, macs = (f"{np.mean([one[key] for one in seeds]):,.0f}" for key in ("params", "macs"))
    return [
        name,
        params,
        macs,
        _spread(seeds, "before", 100),
        _spread(seeds, "top1", 100),
        _spread(seeds, "seconds", 1000),
    ]


def _spread(seeds: list[dict[str, Any]], key: str, scale: int) -> str:
    values = [scale * one[key] for one in seeds if one.get(key) is not None]
    if not values:
        return ""
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")

"""What slimming costs in accuracy, by criterion, settings and budget: python -m benchmarks slim

Runs of one recipe are trained, one for each seed, and slimmed: by every criterion at one budget, then by the best with
other settings, then by the best of all at every budget. Beside each budget stand two networks of the same
multiply-accumulates from random weights, trained for as many epochs as the run and its fine-tuning together: one with
the widths of the slimmed network, one with a smaller width multiplier. What is best is chosen on the validation split,
with the first seeds alone where the flags say so. A benchmark that was interrupted resumes. Hours on 2 cores with the
recipe as it is; its flags make it smaller.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results, trained_runs
from benchmarks.results import ResultTable
from benchmarks.trained_runs import (
    accuracies,
    describe_seeds,
    difference,
    macs,
    mean,
    narrow,
    spread,
    train_or_read,
)
from inception_v1.spec import Spec, read_spec
from tuning.slim_settings import SLIMMING

NAME = "slim"
SETTINGS: dict[str, dict[str, Any]] = {  # that the best criterion is tried with, beside those of `SlimSettings`
    "uniform allocation": {"allocation": "uniform"},
    "no teacher": {"teacher": False},
    "teacher weight 4": {"teacher_weight": 4.0},
    "learning rate x 0.5": {"rate_factor": 0.5},
    "learning rate x 1": {"rate_factor": 1.0},
}
SCRATCH, NARROW = "same widths, random weights", "width multiplier"


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__)
    trained_runs.add_flags(parser, NAME)
    parser.add_argument("--criteria", nargs="+", help="Criteria to compare; none: all.")
    parser.add_argument(
        "--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS), help="Settings to try the best with."
    )
    parser.add_argument("--choice-seeds", type=int, help="Number of first seeds that choices rest on; none: all.")
    parser.add_argument(
        "--budgets",
        type=float,
        nargs="+",
        default=[0.4, 0.25],
        help="Multiply-accumulates to keep; choices by the first.",
    )
    parser.add_argument("--images", type=int, default=256, help="Images that channels are ranked on.")
    parser.add_argument("--multiple", type=int, default=8, help="Of the widths.")
    options = parser.parse_args(arguments)
    if options.choice_seeds is not None and not 1 <= options.choice_seeds <= len(options.seeds):
        parser.error(f"Expected 1 to {len(options.seeds)} seeds for choices; Received: {options.choice_seeds}.")
    result = measure(options)
    results.save(NAME, result)
    return tables(result)


def measure(options: Any) -> dict[str, Any]:
    """Accuracies of every way to slim, and of the networks beside them, for each seed."""
    from tuning.criteria import CRITERIA

    recipe = trained_runs.changed_recipe(options)
    common = {"keep_macs": options.budgets[0], "images": options.images, "multiple": options.multiple}
    found: dict[str, Any] = {"about": results.about(), "runs": trained_runs.describe_runs(options, recipe)}
    found |= {"settings": common, "seeds": options.seeds, "ways": {}, "budgets": {}}
    found["sources"] = [train_or_read(_source(options, s), dataclasses.replace(recipe, seed=s)) for s in options.seeds]
    seeds = options.seeds[: options.choice_seeds]
    criteria = {name: {"criterion": name} for name in options.criteria or CRITERIA}
    found["ways"] |= {name: _slimmed(options, common | way, seeds) for name, way in criteria.items()}
    best = _best(found["ways"])
    ways = {f"{best}, {name}": criteria[best] | SETTINGS[name] for name in options.settings}
    found["ways"] |= {name: _slimmed(options, common | way, seeds) for name, way in ways.items()}
    found["best"] = _best(found["ways"])
    best_way = common | (criteria | ways)[found["best"]]
    for keep in options.budgets:
        way = best_way | {"keep_macs": keep}
        found["budgets"][str(keep)] = {
            "slimmed": _slimmed(options, way, options.seeds),
            SCRATCH: [_same_widths(options, way, seed) for seed in options.seeds],
            NARROW: [_narrow(options, way, seed) for seed in options.seeds],
        }
    return found


def _best(ways: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    return max(ways, key=lambda name: mean(ways[name], "validation"))


def _source(options: Any, seed: int) -> Path:
    return options.out / f"source-{seed}"


def _folder(options: Any, way: Mapping[str, Any], seed: int) -> Path:
    changed = [f"{name}-{way[name]}" for name in sorted(way) if name not in ("images", "multiple")]
    return options.out / "_".join(["slim", *changed, f"seed-{seed}"])


def _slimmed(options: Any, way: dict[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Numbers of one way to slim, for each seed."""
    import tuning
    from training.run_folder import RunFolder
    from tuning.report.slimming import slimming_of

    found = []
    for seed in seeds:
        folder = _folder(options, way, seed)
        if not (folder / SLIMMING).is_file() or "top1" not in slimming_of(RunFolder(folder))["networks"]["slimmed"]:
            tuning.slim(_source(options, seed), folder, tuning.SlimSettings(**way))
        networks = slimming_of(RunFolder(folder))["networks"]
        numbers = {key: networks["slimmed"].get(key) for key in ("params", "macs", "before", "seconds")}
        numbers["source_seconds"] = networks["source"].get("seconds")
        found.append(numbers | accuracies(folder) | {"p": _p(_source(options, seed), folder)})
    return found


def _same_widths(options: Any, way: dict[str, Any], seed: int) -> dict[str, Any]:
    """Numbers of a network with the widths of a slimmed one, trained as long as the source and it together."""
    slimmed = _folder(options, way, seed)
    return _from_random_weights(slimmed, options.out / f"same-widths-{way['keep_macs']}-{seed}", _spec(slimmed))


def _narrow(options: Any, way: dict[str, Any], seed: int) -> dict[str, Any]:
    """Numbers of the widest network with a width multiplier whose cost is not above that of a slimmed one."""
    slimmed, source = _folder(options, way, seed), _spec(_source(options, seed))
    spec = narrow(source, macs(_spec(slimmed)))
    return _from_random_weights(slimmed, options.out / f"narrow-{way['keep_macs']}-{seed}", spec)


def _from_random_weights(slimmed: Path, folder: Path, spec: Spec) -> dict[str, Any]:
    from training.run_folder import RunFolder
    from tuning.report.slimming import slimming_of

    recipe = RunFolder(slimming_of(RunFolder(slimmed))["source"]).recipe()
    longer = dataclasses.replace(recipe, epochs=recipe.epochs + RunFolder(slimmed).recipe().epochs)
    return train_or_read(folder, longer, spec) | {"p": _p(folder, slimmed)}


def _p(first: Path, second: Path) -> float:
    """Of McNemar's test between the two runs on the test split."""
    from training.evaluation.compare import compare

    return float(compare(first, second)["p"])


def _spec(run: Path) -> Spec:
    return read_spec(run / "spec.json")


def tables(result: dict[str, Any]) -> list[ResultTable]:
    """Every way to slim at one budget; and the best one at every budget, beside networks from random weights."""
    about = results.machine(result["about"], "tensorflow", "keras", "onnxruntime")
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    ways = ResultTable(
        f"Slimming by {result['runs']}; {settings}; top-1 in %, "
        f"{describe_seeds(len(next(iter(result['ways'].values()))))}; {about}",
        ["criterion and settings", "validation", "test before fine-tuning", "test", "difference"],
        [
            [
                name,
                spread(runs, "validation"),
                spread(runs, "before"),
                spread(runs, "top1"),
                difference(runs, result["sources"][: len(runs)]),
            ]
            for name, runs in result["ways"].items()
        ],
    )
    heads = ["network", "parameters", "MACs", "test", "difference", "p by seed", "training s", "ONNX ms"]
    rows = [_row("unslimmed", result["sources"], None)]
    for keep, networks in result["budgets"].items():
        for name, runs in networks.items():
            best = name == "slimmed"
            shown = f"slimmed: {result['best']}" if best else name
            rows.append(_row(f"{float(keep):.0%}, {shown}", runs, result["sources"] if best else networks["slimmed"]))
    title = (
        "The best by validation at every budget, its difference from the unslimmed network; and networks from random "
        "weights, trained for as many epochs in all, their difference from the slimmed one; p of McNemar's test; "
        f"{describe_seeds(len(result['seeds']))}; load {result['about']['load']}"
    )
    return [ways, ResultTable(title, heads, rows)]


def _row(name: str, runs: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]] | None) -> list[str]:
    return [
        name,
        f"{mean(runs, 'params'):,.0f}",
        f"{mean(runs, 'macs'):,.0f}",
        spread(runs, "top1"),
        difference(runs, others) if others else "",
        ", ".join(f"{run['p']:.2g}" for run in runs if "p" in run),
        f"{mean(runs, 'train_seconds'):,.0f}",
        spread(runs, "seconds", 1000),
    ]

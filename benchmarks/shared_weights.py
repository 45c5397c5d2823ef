"""Whether shared weights rank networks truly, and whether what they find pays: python -m benchmarks shared_weights

At fractions of the multiply-accumulates of a recipe's network: a search on shared weights, with networks spread over
its ranking trained alone, and its best trained alone from fresh seeds beside `width_multiplier` at the same
multiply-accumulates. The search chooses on the validation split. A benchmark that was interrupted resumes.
"""

import dataclasses
import itertools
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import results, trained_runs
from benchmarks.results import ResultTable
from benchmarks.trained_runs import describe_seeds, macs, mean_and_deviation, narrow, train_or_read
from inception_v1.spec import read_spec

if typing.TYPE_CHECKING:
    from tuning.results import Results

NAME = "shared_weights"
WAYS = {  # what a search starts from, and multipliers of its widths
    "below": ("whole", (0.25, 1.0)),  # the whole network; at most the multiply-accumulates of the baseline
    "around": ("uniform", (0.5, 1.5)),  # the baseline; as many as it has
}
KEEP = 0.02  # largest relative difference from them


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__)
    trained_runs.add_flags(parser, NAME)
    parser.set_defaults(seeds=[1, 2, 3])  # the search has seed 0
    parser.add_argument("--spaces", nargs="+", default=["stages"], help="Search spaces, each with the stem's widths.")
    parser.add_argument("--ways", nargs="+", default=["around"], choices=WAYS, help="What the searches start from.")
    parser.add_argument("--tuner", default="evolution", help="Tuner of the searches.")
    parser.add_argument("--trials", type=int, default=500, help="Trials of a search.")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.25], help="Fractions of the MACs.")
    parser.add_argument("--networks", type=int, default=12, help="Of the rank correlation, at the first budget.")
    parser.add_argument("--retrain", type=int, default=3, help="Best trials of a search that are trained alone.")
    return results.run_with_flags(NAME, parser, arguments, measure, tables)


def measure(options: Any) -> dict[str, Any]:
    """Rank correlations, and test accuracies of what was found and of the baseline, by budget and space."""
    recipe = dataclasses.replace(trained_runs.changed_recipe(options), deterministic=True)
    settings = {"runs": trained_runs.describe_runs(options, recipe), "trials": options.trials, "tuner": options.tuner}
    found: dict[str, Any] = {"about": results.about(), "settings": settings, "budgets": []}
    whole = train_or_read(options.out / "whole", recipe)
    found["whole"] = {"seconds": whole["train_seconds"], "test": whole["top1"]}
    spec = read_spec(options.out / "whole" / "spec.json")
    for budget in options.budgets:
        smaller = narrow(spec, int(budget * whole["macs"]))
        uniform = dataclasses.replace(recipe, width_multiplier=smaller.width_multiplier)
        baseline = [_tested(options.out / f"uniform-{budget:g}-{seed}", uniform, seed) for seed in options.seeds]
        start = {"whole": recipe, "uniform": uniform}
        row: dict[str, Any] = {
            "budget": budget,
            "macs": macs(smaller),
            "width_multiplier": smaller.width_multiplier,
            "uniform": baseline,
            "searches": [],
        }
        found["budgets"].append(row)
        for way, space in itertools.product(options.ways, options.spaces):
            setting = Setting(options, start[WAYS[way][0]], way, space, budget, row["macs"])
            row["searches"].append(search_and_test(setting))
            results.save(NAME, found)
            if budget == options.budgets[0]:
                row["searches"][-1] |= check_ranking(setting)
                results.save(NAME, found)
    return found


class Setting(NamedTuple):
    """One search.

    Attributes:
        options: of the command.
        recipe: of the network that it starts from.
        way: of `WAYS`.
        space: of `tuning.space.SPACES`.
        budget: fraction of the multiply-accumulates of the whole network.
        macs: of the baseline.
    """

    options: Any
    recipe: Any
    way: str
    space: str
    budget: float
    macs: int

    @property
    def name(self) -> str:
        return f"{self.way}-{self.space}-{self.budget:g}"

    @property
    def folder(self) -> Path:
        return self.options.out / f"search-{self.name}"


def search_and_test(setting: Setting) -> dict[str, Any]:
    """A search: its time, and its best from fresh seeds."""
    found, options = search(setting), setting.options
    chosen = [trial for trial in found.ranked_alone if trial in found.ranked[: options.retrain]]
    best = chosen[0]  # not one of the rank check, which a resumed benchmark finds too
    tests = [
        _tested(options.out / f"found-{setting.name}-{seed}", best.recipe, seed, spec=best.spec)
        for seed in options.seeds
    ]
    return {
        "way": setting.way,
        "space": setting.space,
        "macs": best.macs,
        "params": best.params,
        "trials": len(found.trials),
        "values": best.values,
        "validation": found.alone[best.number],
        "seconds": {
            "widest": _seconds(setting.folder / "widest"),
            "trials": sum(trial.seconds for trial in found.trials),
        },
        "test": tests,
    }


def search(setting: Setting, networks: int = 0) -> "Results":
    """The search, its best trained alone, and so many networks of a rank check."""
    import tuning

    options, kept = setting.options, setting.way == "around"
    found = tuning.search(
        setting.folder,
        setting.space,
        recipe=setting.recipe,
        tuner=options.tuner,
        trials=options.trials,
        budget=tuning.Budget(keep_macs=KEEP) if kept else tuning.Budget(max_macs=setting.macs),
        multipliers=WAYS[setting.way][1],
        stem=True,
        shared=tuning.SharedSettings(retrain=options.retrain, rank_check=networks),
    )
    assert found is not None, "a worker of a search"
    return found


def check_ranking(setting: Setting) -> dict[str, Any]:
    """The scores of networks spread over the ranking on shared weights and trained alone, and their correlation."""
    from tuning.rank_correlation import check_ranks

    found = search(setting, setting.options.networks)
    checked = check_ranks(found)
    correlation = checked.correlation and checked.correlation._asdict()
    pairs = [(trial.score, found.alone[trial.number], trial.macs) for trial in checked.trials]
    return {"rank_check": pairs, "correlation": correlation}


def _tested(folder: Path, recipe: Any, seed: int, **arguments: Any) -> float:
    """Top-1 on the test split of a network trained alone."""
    return float(train_or_read(folder, dataclasses.replace(recipe, seed=seed), **arguments)["top1"])


def _seconds(folder: Path) -> float:
    from training.run_folder import RunFolder

    return float(RunFolder(folder).metrics()["seconds"])


def tables(result: dict[str, Any]) -> list[ResultTable]:
    """What was found beside the baseline, and how true the ranking is."""
    known = result["settings"]
    settings = f"{known['runs']}, {known['trials']} trials of tuner {known['tuner']}"
    about = results.machine(result["about"], "tensorflow", "keras")
    whole, count = result["whole"], len(result["budgets"][0]["uniform"])
    title = (
        f"Test top-1 in %, {describe_seeds(count)}; the network with all multiply-accumulates reaches "
        f"{100 * whole['test']:.2f} (one seed); {settings}; {about}"
    )
    heads = ["MACs", "width_multiplier", "search", "found, trained alone", "difference", "Spearman's rho"]
    heads += ["shared training, trainings", "one trial, s"]
    rows = [_row(row, one, whole["seconds"]) for row in result["budgets"] for one in row["searches"]]
    return [ResultTable(title, heads, rows)]


def _row(budget: dict[str, Any], found: dict[str, Any], seconds: float) -> list[str]:
    from tuning.rank_correlation import RankCorrelation

    gains = np.array(found["test"]) - budget["uniform"]
    rho, trials = found.get("correlation"), found["seconds"]["trials"]
    return [
        f"{budget['budget']:.0%}: {budget['macs']:,}",
        f"{budget['width_multiplier']:.4g}: {_percent(budget['uniform'])}",
        f"{found['way']}, {found['space']}: {found['macs']:,}",
        _percent(found["test"]),
        f"{100 * gains.mean():+.2f}",
        str(RankCorrelation(**rho)) if rho else "",
        f"{found['seconds']['widest'] / seconds:.1f}",
        f"{trials / found['trials']:.2f}" if found["trials"] else "",
    ]


def _percent(accuracies: Sequence[float]) -> str:
    return mean_and_deviation([100 * accuracy for accuracy in accuracies])

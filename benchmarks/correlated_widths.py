"""Whether widths from correlations are better than others of the same cost: python -m benchmarks correlated_widths

Runs with the paper's widths are trained, one for each seed. Each proposes widths from the correlations between its
channels, at its own multiply-accumulates and at a part of them. Beside a proposal stand networks of the same cost: the
paper's widths with a smaller multiplier, and random widths, a new draw for each seed. All are trained from random
weights by one recipe. A benchmark that was interrupted resumes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from benchmarks import results, trained_runs
from benchmarks.results import ResultTable
from benchmarks.trained_runs import describe_seeds, difference, mean, narrow, spread, train_or_read
from inception_v1.spec import Spec

NAME = "correlated_widths"
CORRELATED, PAPER, RANDOM = "from correlations", "the paper's", "random"


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__)
    trained_runs.add_flags(parser, NAME)
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0, 0.4], help="Multiply-accumulates to keep.")
    return results.run_with_flags(NAME, parser, arguments, measure, tables)


def measure(options: Any) -> dict[str, Any]:
    """Accuracies of the networks of every budget, for each seed."""
    recipe = trained_runs.changed_recipe(options)
    found: dict[str, Any] = {"about": results.about(), "runs": trained_runs.describe_runs(options, recipe)}
    found["budgets"] = {str(keep): {CORRELATED: [], PAPER: [], RANDOM: []} for keep in options.budgets}
    for seed in options.seeds:
        own = dataclasses.replace(recipe, seed=seed)
        source = options.out / f"source-{seed}"
        train_or_read(source, own)
        for keep in options.budgets:
            for name, spec in _networks(source, keep, own).items():
                own_folder = options.out / f"{name.replace(' ', '_')}-{keep}-{seed}"
                numbers = train_or_read(source if name == PAPER and keep == 1 else own_folder, own, spec)
                found["budgets"][str(keep)][name].append(numbers)
    return found


def _networks(source: Any, keep: float, recipe: Any) -> dict[str, Spec]:
    """Networks of about the same cost, none above the budget by more than 2 %."""
    import tuning
    from training.run_folder import RunFolder

    proposed = tuning.correlated_widths(source, keep_macs=keep)
    start = RunFolder(source).model().spec
    paper = start if keep == 1 else narrow(start, proposed.macs)
    space = tuning.Space("blocks", paper, recipe, budget=tuning.Budget(keep_macs=0.02))
    drawn = space.network(space.sample(20, recipe.seed)[0])
    return {CORRELATED: proposed.spec, PAPER: paper, RANDOM: drawn}


def tables(result: dict[str, Any]) -> list[ResultTable]:
    """The networks of every budget, with the difference from the proposed widths by seed."""
    rows = []
    for keep, networks in result["budgets"].items():
        for name, runs in networks.items():
            above = "" if name == CORRELATED else difference(networks[CORRELATED], runs)
            cells = [f"{mean(runs, 'params'):,.0f}", f"{mean(runs, 'macs'):,.0f}", spread(runs, "validation")]
            rows.append([f"{float(keep):.0%}, {name}", *cells, spread(runs, "top1"), above])
    seeds = len(next(iter(result["budgets"].values()))[CORRELATED])
    about = results.machine(result["about"], "tensorflow", "keras")
    title = f"Widths by {result['runs']}; top-1 in %, {describe_seeds(seeds)}; {about}"
    heads = ["MACs kept, widths", "parameters", "MACs", "validation", "test", "proposed less this, points"]
    return [ResultTable(title, heads, rows)]

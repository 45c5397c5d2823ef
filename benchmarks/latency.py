"""Sums of a latency table beside networks that are timed as a whole: python -m benchmarks latency

`googlenet latency` profiles 24 networks for a table, operation by operation; here its sums meet 20 random networks of
the search spaces, none of them among the 24. With one thread the processor's own time counts, to which other processes
add little; with more it is the time that passes, so that the machine must be idle. About 10 minutes on 2 cores.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import results
from benchmarks.results import ResultTable
from inception_v1.spec import Spec
from training.presets import PRESETS
from training.task import recipe_spec

NAME = "latency"


class Case(NamedTuple):
    """A setting: the network that all others differ from in their widths, images in a call, threads (None: all)."""

    network: Spec
    batch: int
    threads: int | None


SMALL = recipe_spec(PRESETS["fashion"], channels=1, classes=10)
CASES = {
    "recipe fashion, batch 1, 1 thread": Case(SMALL, 1, 1),
    "recipe fashion, batch 16, 1 thread": Case(SMALL, 16, 1),
    "batchnorm, 224 px, batch 1, 1 thread": Case(Spec("batchnorm", aux=False), 1, 1),
    "recipe fashion, batch 1, all threads": Case(SMALL, 1, None),
}


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__)
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES), help="Cases; others stay as stored.")
    parser.add_argument("--networks", type=int, default=24, help="Networks that are profiled for a table.")
    parser.add_argument("--checks", type=int, default=20, help="Networks that are timed as a whole.")
    options = parser.parse_args(arguments)
    result = results.load(NAME) or {"cases": {}}
    for name in options.case:
        result["cases"][name] = measure(CASES[name], options.networks, options.checks)
        results.save(NAME, result)  # a case takes minutes
    return tables(result)


def measure(case: Case, networks: int, checks: int) -> dict[str, Any]:
    """Seconds of every check by its clock and by the table, with the machine at the end."""
    from tuning import measure_latency

    table = measure_latency(case.network, batch=case.batch, threads=case.threads, networks=networks, checks=checks)
    measured = [check._asdict() for check in table.checks]
    own = {"about": results.about(), "networks": networks}
    return own | {"checks": measured, "overhead": table.overhead, "factor": table.factor}


def tables(result: dict[str, Any]) -> list[ResultTable]:
    """One table of the cases that were measured on one machine, on one day and with as many networks."""
    rows: dict[str, list[list[str]]] = {}
    for name, case in result["cases"].items():
        measured = 1000 * np.array([check["measured"] for check in case["checks"]])
        errors = 1000 * np.array([check["predicted"] for check in case["checks"]]) / measured - 1
        shown = [f"{measured.min():.2f}-{measured.max():.2f}"]
        shown += [f"{100 * error:.1f}" for error in (abs(errors).mean(), abs(errors).max(), errors.mean())]
        inside = f"{(abs(errors) <= 0.1).sum()} of {len(errors)}"
        about = results.machine(case["about"], "onnxruntime")
        title = f"Sums of a table from {case['networks']} profiled networks; {about}"
        rows.setdefault(title, []).append([name, *shown, inside, f"{case['about']['load']:.1f}"])
    heads = ["networks", "ms", "mean difference, %", "largest, %", "mean with its sign, %", "within 10 %", "load"]
    return [ResultTable(title, heads, own) for title, own in rows.items()]

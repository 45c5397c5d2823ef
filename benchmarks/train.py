"""A training step on this CPU beside torchvision's: python -m benchmarks train

float32, all heads, the same widths, SGD with momentum, one batch in memory, all cores. This package's `torchvision`
variant runs the step that `fit` runs; torchvision's network runs eager and by `torch.compile`, in channels-last. They
take turns. The table shows images per second, the fraction of the matmul peak (the speed of the faster of two large
matmuls on the same cores), and the memory of the process. About 6 minutes on 2 cores, a third of them `torch.compile`.
"""

import functools
from collections.abc import Sequence
from typing import Any

from benchmarks import results, steps
from benchmarks.results import ResultTable
from benchmarks.rounds import Make, alternate, median
from benchmarks.steps import Step

NAME = "train"
OURS, EAGER, COMPILED = "this package, TensorFlow", "torchvision, eager", "torchvision, torch.compile"
MATMULS = {"torch": "matmul by PyTorch", "tensorflow": "matmul by TensorFlow"}  # 3,072 x 3,072


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__, rounds=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32], help="Batch sizes to measure.")
    options = parser.parse_args(arguments)
    result = measure(options.batches, options.rounds)
    results.save(NAME, result)
    return tables(result)


def measure(batches: Sequence[int], rounds: int, compiled: bool = True, size: int = 224) -> dict[str, Any]:
    """Rates and memory of every form, by batch."""
    result: dict[str, Any] = {"about": results.about(), "rounds": rounds, "size": size, "batches": {}}
    for batch in batches:
        step = Step(batch, size)
        makers: dict[str, Make] = {
            OURS: functools.partial(steps.package_step, step),
            EAGER: functools.partial(steps.torchvision_step, step, compiled=False),
            **({COMPILED: functools.partial(steps.torchvision_step, step, compiled=True)} if compiled else {}),
            **{name: functools.partial(steps.matmul, repeats=4, by=by) for by, name in MATMULS.items()},
        }
        result["batches"][str(batch)] = alternate(makers, rounds, warmup=2)
    return result


def tables(result: dict[str, Any]) -> list[ResultTable]:
    about = results.machine(result["about"], "tensorflow", "keras", "torch", "torchvision")
    shown = []
    for batch, forms in result["batches"].items():
        work = steps.flops(Step(int(batch), result["size"])) / int(batch)
        matmuls = {name: 2 * median(forms[name]) for name in MATMULS.values() if forms[name]}
        peak = max(matmuls.values())
        fastest, rows = steps.fastest_torch(forms), []
        for name, form in forms.items():
            if form is None:
                rows.append([name, "not installed", *[""] * 6])
            elif name in matmuls:
                rows.append(
                    [name, f"{matmuls[name] / 1e9:.0f} GFLOP/s", "", "", f"{matmuls[name] / peak:.0%}", "", "", ""]
                )
            else:
                rows.append(
                    [
                        name,
                        *steps.rate_cells(form, fastest, work / peak, digits=2),
                        f"{form['memory'] / 1e9:.2f}",
                        f"{form['grown'] / 1e9:.2f}",
                        f"{form['first']:.0f}",
                    ]
                )
        heads = ["form", "images/s", "range", "of the fastest torch", "of the matmul peak", "GB", "GB of a step"]
        title = f"Training, {result['size']} px, batch {batch}, float32, medians of {result['rounds']} rounds; {about}"
        shown.append(ResultTable(title, [*heads, "first step, s"], rows))
    return shown


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """What `--quick` compares: higher is better."""
    found = {}
    for batch, forms in result["batches"].items():
        if forms[EAGER]:
            found[f"training, {result['size']} px, batch {batch}: images/s, of torchvision's eager"] = median(
                forms[OURS]
            ) / median(forms[EAGER])
    return found

"""Time and memory of a training step against its size: python -m benchmarks growth

The step is the one that `fit` runs, on TensorFlow, float32, with all heads, one batch in memory and all cores; it grows
along the input size, the batch, the width of the network and the classes. Each point has a process of its own, and no
two run at once. An exponent of time against work (the operations of convolutions and matmuls) of 1 is linear, one above
1.1 is worse than that. Small steps are mostly fixed cost, which lowers the exponent, so the two largest points have one
of their own. The update of the weights is no work in this sense: more classes add many weights and little work, so that
time against the axis is what matters there. About 4 minutes on 2 cores.
"""

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import results, steps
from benchmarks.results import ResultTable
from benchmarks.rounds import alternate
from benchmarks.steps import Step

NAME = "growth"
AXES = {  # by the field of `Step` that grows, from the smallest to the largest
    "size": [Step(4, size) for size in (96, 160, 224, 320, 448)],
    "batch": [Step(batch, 96) for batch in (1, 2, 4, 8, 16, 32, 64)],
    "width": [Step(8, 96, width=width) for width in (0.25, 0.5, 1.0, 1.5, 2.0)],
    "classes": [Step(8, 96, classes=classes) for classes in (10, 100, 1000, 10_000, 21_841)],
}


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    return results.run(NAME, __doc__, arguments, 9, functools.partial(measure, AXES), tables)


def measure(axes: Mapping[str, Sequence[Step]], rounds: int) -> dict[str, Any]:
    """Seconds, memory and work of every point, by axis."""
    points: dict[Step, dict[str, Any]] = {}  # some are on two axes
    for step in (step for grown in axes.values() for step in grown):
        if step not in points:
            name = f"{step.batch} x {step.size} px, width {step.width}, {step.classes} classes"
            form = alternate({name: functools.partial(steps.package_step, step)}, rounds, warmup=2)[name]
            assert form, "TensorFlow is not installed"
            points[step] = form | {"seconds": [step.batch / rate for rate in form["rates"]]}
    return {
        "about": results.about(),
        "rounds": rounds,
        "axes": {
            axis: [{"value": getattr(step, axis), "flops": steps.flops(step), **points[step]} for step in grown]
            for axis, grown in axes.items()
        },
    }


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The e of y = c * x**e, by least squares of the logarithms."""
    return statistics.linear_regression([math.log(value) for value in x], [math.log(value) for value in y]).slope


def exponents(points: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Of time against work, of time against the axis, and of the memory of a step against the axis."""
    values, work = [point["value"] for point in points], [point["flops"] for point in points]
    seconds = [statistics.median(point["seconds"]) for point in points]
    return exponent(work, seconds), exponent(values, seconds), exponent(values, [point["grown"] for point in points])


def tables(result: dict[str, Any]) -> list[ResultTable]:
    rows, fits = [], []
    for axis, points in result["axes"].items():
        for point in points:
            seconds, flops = statistics.median(point["seconds"]), point["flops"]
            rows.append(
                [
                    f"{axis} {point['value']:,}",
                    f"{1000 * seconds:.0f}",
                    f"{1000 * min(point['seconds']):.0f}-{1000 * max(point['seconds']):.0f}",
                    f"{flops / 1e9:.1f}",
                    f"{flops / seconds / 1e9:.0f}",
                    f"{point['memory'] / 1e9:.2f}",
                    f"{point['grown'] / 1e9:.2f}",
                ]
            )
        pairs = zip(exponents(points), exponents(points[-2:]), strict=True)
        fits.append([axis, *(f"{value:.2f}" for pair in pairs for value in pair)])
    about = results.machine(result["about"], "tensorflow", "keras")
    title = (
        f"A training step, float32, medians of {result['rounds']}; sizes at batch 4, batches at 96 px, the rest at both"
    )
    return [
        ResultTable(f"{title}; {about}", ["", "ms", "range", "GFLOP", "GFLOP/s", "GB", "GB of a step"], rows),
        ResultTable(
            "Exponents of all points, then of the two largest (pixels grow by the square of the size)",
            ["", "time/work", "largest", "time/axis", "largest", "memory of a step/axis", "largest"],
            fits,
        ),
    ]

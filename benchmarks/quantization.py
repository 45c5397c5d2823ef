"""Accuracy of exports in fewer bits on a whole test split: python -m benchmarks quantization

Runs are trained, one for each seed, and exported to ONNX and LiteRT in all precisions, as `googlenet export` does it:
ranges of int8 come from 200 images of the training split. Then a fresh process runs the files on the whole test split,
beside the Keras network in float32. The float32 ONNX file has no row: each export compares it with the network within
1e-4 of the logits. By the recipe `fashion` in full about 45 minutes a seed on 2 cores with bfloat16; a benchmark that
was interrupted resumes.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import results, trained_runs
from benchmarks.results import ResultTable
from benchmarks.trained_runs import describe_seeds, mean_and_deviation, train_or_read

NAME = "quantization"
PRECISIONS = ("float32", "float16", "dynamic", "int8")
KERAS = "keras"
BAR = -0.3  # points, of int8


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__)
    trained_runs.add_flags(parser, NAME)
    return results.run_with_flags(NAME, parser, arguments, measure, tables)


def measure(options: Any) -> dict[str, Any]:
    """Scores of every form, for each seed."""
    recipe = trained_runs.changed_recipe(options)
    scores = []
    for seed in options.seeds:
        folder = options.out / f"seed-{seed}"
        train_or_read(folder, dataclasses.replace(recipe, seed=seed))
        scores.append(score_exports(folder))
    return {"about": results.about(), "runs": trained_runs.describe_runs(options, recipe), "scores": scores}


def score_exports(folder: Path) -> dict[str, dict[str, float]]:
    """{form: "images", "top1" and "loss"} of the exports of a run and of its Keras network, on the whole test split."""
    from training.export.export import export
    from training.export.export_model import ExportModel
    from training.export.samples import comparison_samples
    from training.export.verification import verify
    from training.run_folder import RunFolder

    run = RunFolder(folder)
    network = ExportModel(run.model(), run.classes())
    with tempfile.TemporaryDirectory() as out:
        card = export(folder, out, to=("onnx", "litert"), precisions=PRECISIONS, version=1)
        everything = comparison_samples(run, network, run.metrics()["images"])
        scores: dict[str, dict[str, float]] = verify(Path(out, "1"), card, network, everything)["accuracy"]
        return scores


def tables(result: dict[str, Any]) -> list[ResultTable]:
    """Top-1 of each form, and how far it is from the Keras network's by seed."""
    scores = result["scores"]
    rows = []
    for form in scores[0]:
        less = [100 * (each[form]["top1"] - each[KERAS]["top1"]) for each in scores]
        cells = [mean_and_deviation([100 * each[form]["top1"] for each in scores])]
        cells += ["", ""] if form == KERAS else [mean_and_deviation(less), f"{BAR}" if form.endswith("/int8") else ""]
        rows.append([form, *cells])
    about = results.machine(result["about"], "tensorflow", "keras", "onnxruntime", "ai-edge-litert")
    title = f"{result['runs']}, {scores[0][KERAS]['images']:,} test images; top-1 in %, {describe_seeds(len(scores))}"
    return [ResultTable(f"{title}; {about}", ["form", "top-1", "difference from Keras, points", "bar"], rows)]

"""Whether searched widths beat the paper's at the same multiply-accumulates: 10,000 images of Fashion-MNIST at 16 px.

The search chooses by a validation split; three fresh seeds of both networks then see the test split for the first time.
About an hour on 2 cores; a script that was interrupted resumes.
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console

from benchmarks import results
from benchmarks.results import ResultTable
from inception_v1 import Spec
from training import run_folder
from training.presets import PRESETS
from training.run_folder import RunFolder
from training.train import train
from tuning import Budget, search
from tuning.report.terminal import trial_line

RECIPE = dataclasses.replace(
    PRESETS["fashion"],  # half width, small stem
    train_split="train[:10000]",
    validation_split="train[10000:20000]",  # as many again, so that the choice is not one of chance
    image_size=16,
    erase=0.0,  # too much for so few epochs
    epochs=8,
    deterministic=True,
)
SEEDS = (1, 2, 3)
NAME = "widths"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="branches", help="Search space, of tuning.space.SPACES.")
    parser.add_argument("--trials", type=int, default=18, help="Trials of the search.")
    parser.add_argument("--out", type=Path, default=Path("runs/widths"), help="Folder of the search and of the runs.")
    options = parser.parse_args()
    console = Console()
    found = search(
        options.out / "search",
        options.space,
        recipe=RECIPE,
        trials=options.trials,
        budget=Budget(keep_macs=0.02),
        show=lambda standing: console.print(trial_line(standing), soft_wrap=True, highlight=False),
    )
    assert found is not None, "a worker of a search"
    assert found.best is not None, "a search without a completed trial"
    networks = {"paper": found.trials[0], "searched": found.best}
    confirmed = {
        name: [confirm(options.out / f"{name}-{seed}", trial.spec, seed) for seed in SEEDS]
        for name, trial in networks.items()
    }
    result = {
        "space": options.space,
        "trials": len(found.trials),
        "seconds": {
            "search": round(sum(trial.seconds for trial in found.trials)),
            "confirmation": round(sum(run["seconds"] for runs in confirmed.values() for run in runs)),
        },
        "networks": {
            name: {
                "validation": trial.score,
                "values": trial.values,
                "params": trial.params,
                "macs": trial.macs,
                "test": [run["heads"]["main"]["top1"] for run in confirmed[name]],
            }
            for name, trial in networks.items()
        },
    }
    results.save(NAME, result)
    table(result).print(console)
    console.print(json.dumps(result["seconds"]))


def confirm(folder: Path, spec: Spec, seed: int) -> dict[str, Any]:
    """Numbers of the test split after training anew from another seed."""
    run = RunFolder(folder)
    if not ((run / run_folder.METRICS).is_file() and run.metrics()["status"] == "finished"):
        train(dataclasses.replace(RECIPE, seed=seed), folder, spec=spec)
    return run.metrics()


def table(result: dict[str, Any]) -> ResultTable:
    """Both networks, with the test top-1 of each seed."""
    heads = ("widths", "parameters", "MACs", "validation", *(f"seed {seed}" for seed in SEEDS), "mean ± std")
    rows = []
    for name, network in result["networks"].items():
        percent = 100 * np.array(network["test"])
        values = ", ".join(f"{branch} {value:.2f}" for branch, value in network["values"].items())
        cells = [f"{100 * network['validation']:.2f}", *(f"{one:.2f}" for one in percent)]
        cells += [f"{percent.mean():.2f} ± {percent.std(ddof=1):.2f}"]
        rows.append([f"{name}: {values}", f"{network['params']:,}", f"{network['macs']:,}", *cells])
    return ResultTable("Test top-1 of the main head, %", heads, rows)


if __name__ == "__main__":
    main()

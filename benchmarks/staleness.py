"""What stale gradients cost: asynchronous against synchronous SGD at 1, 2 and 4 workers.

`python -m benchmarks.staleness` trains one recipe of `digits` (quarter width, 32 images for each worker and step, 15
epochs) by `googlenet launch` with parameter servers and with all-reduce, two seeds each, and prints the test top-1 of
the main head with the staleness that the runs measured. The batch of synchronous steps grows with the workers, and the
learning rate with it; asynchronous steps stay as they are, and as many as with one worker. About 15 minutes on 2 cores.
Results so far are kept in `benchmarks/results/staleness.json`, so that a script that was interrupted resumes.
"""

import dataclasses
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import results
from benchmarks.results import ResultTable
from training.distribution.launch import launch
from training.presets import PRESETS

NAME = "staleness"
ROOT = Path(__file__).parents[1]
RECIPE = dataclasses.replace(PRESETS["digits"], width_multiplier=0.25, batch_size=32, epochs=15)
WORKERS, SEEDS = (1, 2, 4), (0, 1)
STRATEGIES = {"multiworker": "synchronous", "parameter-server": "asynchronous"}


def main() -> None:
    known, console = results.load(NAME) or {}, Console()
    for seed, workers, strategy in itertools.product(SEEDS, WORKERS, STRATEGIES):
        if name(strategy, workers, seed) not in known:
            known[name(strategy, workers, seed)] = run(strategy, workers, seed)
            results.save(NAME, known)
            console.print(name(strategy, workers, seed), known[name(strategy, workers, seed)], highlight=False)
    table(known).print(console)


def name(strategy: str, workers: int, seed: int) -> str:
    return f"{strategy} {workers} {seed}"


def run(strategy: str, workers: int, seed: int) -> dict[str, Any]:
    """The test top-1 of one run, and what else it measured."""
    with tempfile.TemporaryDirectory() as folder:
        recipe, out, lines = Path(folder, "recipe.json"), Path(folder, "run"), list[str]()
        recipe.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(RECIPE, seed=seed))), "utf-8")
        command = [sys.executable, str(ROOT / "googlenet.py"), "train", "--recipe", str(recipe), "--out", str(out)]
        command += ["--strategy", strategy]
        if launch(command, workers, lines.append, parameter_servers=int(strategy == "parameter-server")):
            raise RuntimeError("\n".join(lines[-30:]))
        metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    kept = {key: metrics[key] for key in ("updates", "staleness", "seconds") if key in metrics}
    return {"top1": metrics["heads"]["main"]["top1"], **kept}


def table(known: dict[str, dict[str, Any]]) -> ResultTable:
    """Means over the seeds."""
    rows = []
    for workers in WORKERS:
        by_strategy = {s: [known[name(s, workers, seed)] for seed in SEEDS] for s in STRATEGIES}
        cells = []
        for runs in by_strategy.values():
            scores = [100 * run["top1"] for run in runs]
            cells.append(f"{statistics.mean(scores):.2f} ± {statistics.stdev(scores):.2f}")
        stale = [run["staleness"] for run in by_strategy["parameter-server"]]
        cells += [f"{statistics.mean(s['mean'] for s in stale):.2f}", str(max(s["max"] for s in stale))]
        rows.append([str(workers), *cells])
    title = f"digits, {len(SEEDS)} seeds: test top-1 of the main head, %"
    return ResultTable(title, ("workers", *STRATEGIES.values(), "mean staleness, updates", "largest"), rows)


if __name__ == "__main__":
    main()

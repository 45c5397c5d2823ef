"""Whether something has become slower: small measurements as ratios to baselines, beside the stored ratios.

`python -m benchmarks --quick` reports; `--quick --save` stores what it measured as the new standard. A shared machine
is noisy: a ratio counts as worse below 0.8 of the stored one, and a single such line is no more than a reason to look.
"""

import time

from rich.console import Console

from benchmarks import input_pipeline, results, startup, train
from benchmarks.results import ResultTable

NAME = "quick"
WORSE = 0.8


def main(console: Console, save: bool = False) -> int:
    began = time.monotonic()
    known = results.load(NAME)
    found: dict[str, float] = {}
    found |= train.ratios(train.measure([4], rounds=7, compiled=False, size=128))
    found |= input_pipeline.ratios(input_pipeline.measure(rounds=3))
    found |= startup.ratios(startup.measure(2, startup.COMPARED))
    table(found, known["ratios"] if known else {}).print(console)
    console.print(f"{time.monotonic() - began:.0f} s")
    if save:
        results.save(NAME, {"about": results.about(), "ratios": found})
    return 0


def table(found: dict[str, float], known: dict[str, float]) -> ResultTable:
    """Every ratio, higher being better, beside the stored one."""
    rows = []
    for name in dict.fromkeys([*known, *found]):
        cells = [f"{ratios[name]:.2f}" if name in ratios else "" for ratios in (found, known)]
        verdict = "not measured" if name not in found else "new" if name not in known else ""
        if not verdict:
            verdict = "worse" if found[name] < WORSE * known[name] else "as before"
        rows.append([name, *cells, verdict])
    return ResultTable("Ratios, higher is better", ["what", "now", "stored", ""], rows)

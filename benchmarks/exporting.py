"""Memory and time of exports of the paper's network: python -m benchmarks export

`googlenet export` of the network with random weights to SavedModel, ONNX and LiteRT (without int8, which needs images
of a run): each alone, and all together. An export runs what it wrote in a second process, and the memory is that of
both at the same time, with pages that both use counted once (proportional set size). About 2 minutes a round on 2
cores.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import results
from benchmarks.results import ResultTable
from benchmarks.rounds import sample_memory

NAME = "export"
TARGETS = ("savedmodel", "onnx", "litert", "savedmodel,onnx,litert")
SAMPLE = 0.1  # seconds between the end of a sample of the memory and the next one
BAR = 2.5  # GB


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    return results.run(NAME, __doc__, arguments, 1, measure, tables)


def measure(rounds: int) -> dict[str, Any]:
    """Bytes at most and seconds of every export, round by round."""
    from inception_v1 import build_googlenet

    targets: dict[str, dict[str, list[float]]] = {target: {"bytes": [], "seconds": []} for target in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "paper.keras")
        build_googlenet().save(file)
        for turn in range(rounds):
            for target, found in targets.items():
                out = Path(folder, f"{turn} {target}")
                command = [sys.executable, "-m", "googlenet", "export", str(file), "--to", target, "--out", str(out)]
                began = time.perf_counter()
                found["bytes"].append(max(sample_memory(command, tree_memory, SAMPLE)))
                found["seconds"].append(time.perf_counter() - began)
    return {"about": results.about(), "rounds": rounds, "targets": targets}


def tree_memory(process: int) -> int:
    """Bytes that a process and all that it started hold together; 0 where it has ended."""
    try:
        family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(_proportional_set_size, family))


def _proportional_set_size(process: psutil.Process) -> int:
    """Bytes of a process, of a page that n processes use an nth; 0 where it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def tables(result: dict[str, Any]) -> list[ResultTable]:
    rows = [
        [
            f"`--to {target}`",
            f"{max(found['bytes']) / 1e9:.2f}",
            f"{BAR}" if target == TARGETS[-1] else "",
            f"{statistics.median(found['seconds']):.0f}",
        ]
        for target, found in result["targets"].items()
    ]
    about = results.machine(result["about"], "tensorflow", "keras", "onnxruntime", "ai-edge-litert")
    title = f"The paper's network, {result['rounds']} round{'s' * (result['rounds'] > 1)}; {about}"
    return [ResultTable(title, ["export", "memory at most, GB", "bar", "seconds"], rows)]

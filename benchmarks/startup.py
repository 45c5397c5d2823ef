"""How long users wait before anything happens: python -m benchmarks startup

Each command runs in a process of its own, in turns: the help of the command line, `import keras`,
`from inception_v1 import build_googlenet`, and `googlenet train` on digits up to the end of its first step. About 3
minutes on 2 cores.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import results
from benchmarks.results import ResultTable

NAME = "startup"
HELP, KERAS, STEP = "googlenet --help", "import keras", "googlenet train, first step"
PACKAGE = "from inception_v1 import build_googlenet"  # the bare package imports no Keras
FIRST_STEP = """
import os, sys
import googlenet
googlenet._prepare_tensorflow()  # which the command does before it imports what follows
from training.report import progress

class EndAfterFirstStep(progress.ShowProgress):
    def on_train_batch_end(self, batch, logs=None):
        os._exit(0)

progress.ShowProgress = EndAfterFirstStep
googlenet.main(["train", "--out", sys.argv[1]])
"""
PROGRAMS = {
    HELP: ["-m", "googlenet", "--help"],
    KERAS: ["-c", "import keras"],
    PACKAGE: ["-c", PACKAGE],
    STEP: ["-c", FIRST_STEP],
}


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    return results.run(NAME, __doc__, arguments, 7, measure, tables)


def measure(rounds: int) -> dict[str, Any]:
    """Seconds of every program, after one round that does not count and fills the caches of files."""
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for turn in range(rounds + 1):
        for name, program in PROGRAMS.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, *program, os.path.join(folder, "run")],
                    env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=True,
                )
                if turn:
                    seconds[name].append(time.perf_counter() - began)
    return {"about": results.about(), "rounds": rounds, "seconds": seconds}


def tables(result: dict[str, Any]) -> list[ResultTable]:
    bars = {HELP: "0.5", PACKAGE: f"{1.05 * statistics.median(result['seconds'][KERAS]):.2f}", STEP: "6"}
    rows = [
        [f"`{name}`", f"{statistics.median(values):.2f}", f"{min(values):.2f}-{max(values):.2f}", bars.get(name, "")]
        for name, values in result["seconds"].items()
    ]
    about = results.machine(result["about"], "tensorflow", "keras")
    return [
        ResultTable(f"Start-up, medians of {result['rounds']}; {about}", ["command", "seconds", "range", "bar"], rows)
    ]


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """What `--quick` compares: higher is better."""
    middle = {name: statistics.median(values) for name, values in result["seconds"].items()}
    return {
        "start-up: import keras / import build_googlenet": middle[KERAS] / middle[PACKAGE],
        "start-up: import keras / first step of training": middle[KERAS] / middle[STEP],
    }

"""How long users wait before anything happens: python -m benchmarks startup

Each command runs in a process of its own, in turns: the help of the command line, `import keras`,
`from inception_v1 import build_googlenet`, `googlenet predict` of one photograph by a network of the preset `digits`,
and `googlenet train` up to the end of its first step, by that preset and with the paper's network in batches of 32
images. About a minute a round on 2 cores.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.results import ResultTable
from benchmarks.trained_runs import write_untrained

NAME = "startup"
HELP, KERAS, STEP = "googlenet --help", "import keras", "googlenet train, first step"
PACKAGE = "from inception_v1 import build_googlenet"  # the bare package imports no Keras
PREDICT, PAPER = "googlenet predict, one image", "googlenet train, first step of the paper's network"
FIRST_STEP = """
import os, sys
import googlenet
googlenet._prepare_tensorflow()  # which the command does before it imports what follows
from training.report import progress

class EndAfterFirstStep(progress.ShowProgress):
    def on_train_batch_end(self, batch, logs=None):
        os._exit(0)

progress.ShowProgress = EndAfterFirstStep
googlenet.main(["train", *sys.argv[1:]])
"""
OUT, RUN, IMAGE = "OUT", "RUN", "IMAGE"  # stand for paths
PROGRAMS = {
    HELP: ["-m", "googlenet", "--help"],
    KERAS: ["-c", "import keras"],
    PACKAGE: ["-c", PACKAGE],
    PREDICT: ["-m", "googlenet", "predict", RUN, IMAGE],
    STEP: ["-c", FIRST_STEP, "--out", OUT],
    PAPER: [
        *("-c", FIRST_STEP, "--variant", "paper", "--width-multiplier", "1", "--image-size", "224"),
        *("--batch-size", "32", "--out", OUT),
    ],
}
COMPARED = (KERAS, PACKAGE, STEP)  # by `ratios`


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    return results.run(NAME, __doc__, arguments, 7, measure, tables)


def measure(rounds: int, names: Sequence[str] = tuple(PROGRAMS)) -> dict[str, Any]:
    """Seconds of these programs, after one round that does not count and fills the caches of files."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_run(Path(folder)) if PREDICT in names else {}
        for turn in range(rounds + 1):
            for number, (name, values) in enumerate(seconds.items()):
                places = paths | {OUT: str(Path(folder, f"{turn} {number}"))}
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, *(places.get(part, part) for part in PROGRAMS[name])],
                    env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=True,
                )
                if turn:
                    values.append(time.perf_counter() - began)
    return {"about": results.about(), "rounds": rounds, "seconds": seconds}


def write_run(folder: Path) -> dict[str, str]:
    """Writes a run of digits whose network is not trained, and a photograph."""
    import sklearn.datasets
    from PIL import Image

    from training.presets import PRESETS

    run, image = write_untrained(folder / RUN, PRESETS["digits"], 1, list("0123456789")), folder / "image.jpg"
    Image.fromarray(sklearn.datasets.load_sample_images().images[0]).save(image)
    return {RUN: str(run.path), IMAGE: str(image)}


def tables(result: dict[str, Any]) -> list[ResultTable]:
    package = f"{1.05 * statistics.median(result['seconds'][KERAS]):.2f}"
    bars = {HELP: "0.5", PACKAGE: package, PREDICT: "6", STEP: "6", PAPER: "12"}
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

"""What saving the state within an epoch costs: python -m benchmarks saving

The paper's network (224 px, both heads, a moving average of the weights) trains on one batch in memory as `train` does.
Epochs take turns: one saves nothing, the next a state every 4 steps, which the default does every 10 minutes. The table
gives the median step of both, their ratio, and for how long a save blocks training: until its copies are made, and all
in all, with what the thread that writes takes from the steps.

Two workers on this machine then ask each other whether to save, which they do once a second. About 3 minutes on 2
cores.
"""

import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import results
from benchmarks.results import ResultTable

NAME = "saving"
STEPS, EVERY = 9, 4  # of an epoch, and between two states: two are saved in an epoch
CALLS = 300


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__, rounds=3)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args(arguments)
    result = measure(options.batch, options.rounds) | {"agreement": agreement_seconds()}
    results.save(NAME, result)
    return tables(result)


def measure(batch: int, rounds: int, size: int = 224, width: float = 1.0) -> dict[str, Any]:
    """Seconds of all steps without and with saving, and for how long each save blocked."""
    import keras
    import numpy as np
    import tensorflow as tf

    from inception_v1 import Spec
    from training import callbacks
    from training.data.pipeline import START
    from training.distribution.strategy import SingleDevice
    from training.interruption import Interruption
    from training.recipe import Recipe
    from training.run_folder import RunFolder
    from training.run_state import Interval, SaveState, StateFiles
    from training.train import compile_model, head_loss_weights

    class SaveInTurn(SaveState):
        """Saves in every second epoch, and takes the time of each step."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_begin(epoch, logs)
            self._interval = Interval(steps=EVERY) if epoch % 2 else Interval()
            self._ended: float | None = None

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(logs["loss"])  # as `StopOnDivergence` reads it
            began = time.perf_counter()
            super().on_train_batch_end(batch, logs)
            ended, saves = time.perf_counter(), bool(self._epoch % 2)
            if self._epoch and self._ended:
                steps[saves].append(ended - self._ended)
            if self._epoch and saves and (batch + 1) % EVERY == 0:
                blocked.append(ended - began)
            self._ended = ended

    steps: dict[bool, list[float]] = {False: [], True: []}
    blocked: list[float] = []
    keras.utils.set_random_seed(0)
    spec = Spec("paper", input_shape=(size, size, 3), classes=1000, width_multiplier=width)
    recipe = Recipe(batch_size=batch, base_batch_size=batch, learning_rate=0.001, average=0.999)
    model = compile_model(recipe, spec, STEPS, head_loss_weights(recipe, spec))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, size, size, 3)).astype("float32"), rng.integers(1000, size=batch)
    device = SingleDevice()
    with (
        tempfile.TemporaryDirectory() as folder,
        StateFiles(RunFolder(folder)) as files,
        Interruption() as interruption,
    ):
        history = callbacks.History(Path(folder) / "history.csv")
        save = SaveInTurn(files, device, Interval(), interruption, STEPS, [], history)
        device.fit(
            model,
            lambda *_: tf.data.Dataset.from_tensors(images).repeat(),
            None,
            start=START,
            epochs=1 + 2 * rounds,
            steps=STEPS,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=save.on_epoch_trained), save],
        )
        written = (Path(folder) / "state.npz").stat().st_size
    return {
        "about": results.about(),
        "batch": batch,
        "size": size,
        "rounds": rounds,
        "without": steps[False],
        "with": steps[True],
        "blocked": blocked,
        "bytes": written,
    }


def agreement_seconds() -> list[float]:
    """Seconds of each question that two workers on this machine ask each other."""
    from training.distribution.launch import launch

    with tempfile.TemporaryDirectory() as folder:
        out, lines = Path(folder) / "result.json", list[str]()
        status = launch([sys.executable, "-m", "benchmarks.saving", str(out)], 2, lines.append)
        if status:
            raise RuntimeError("\n".join([f"ended with status {status}:", *lines[-40:]]))
        return json.loads(out.read_text("utf-8"))


def ask(out: Path) -> None:
    """As one of the workers: asks, and the chief writes the seconds to `out`."""
    from inception_v1.atomic_files import write_json
    from training.distribution.choose import make_strategy

    distribution, seconds = make_strategy("multiworker", timeout=60), []
    for _ in range(CALLS):
        began = time.perf_counter()
        distribution.total([0, 0, 1])
        seconds.append(time.perf_counter() - began)
    if distribution.is_chief:
        write_json(out, seconds[CALLS // 10 :])
    distribution.gather("finished")


def tables(result: dict[str, Any]) -> list[ResultTable]:
    without, saving = result["without"], result["with"]
    step, per_epoch = statistics.median(without), STEPS - 1  # the first of an epoch follows its end
    cost = (statistics.mean(saving) - statistics.mean(without)) * per_epoch / ((STEPS - 1) // EVERY)
    blocked, each = statistics.median(result["blocked"]), functools.partial("{:.3f}".format)
    rows = [
        ["median step without saving", each(step), "1.00"],
        ["median step with saving", each(statistics.median(saving)), f"{statistics.median(saving) / step:.2f}"],
        ["a save blocks training", each(blocked), f"{blocked / step:.2f}"],
        ["the longest of them", each(max(result["blocked"])), f"{max(result['blocked']) / step:.2f}"],
        ["a save, all in all", each(cost), f"{cost / step:.2f}"],
    ]
    about = results.machine(result["about"], "tensorflow", "keras")
    title = (
        f"The paper's network, {result['size']} px, batch {result['batch']}, a state of {result['bytes'] / 1e6:.0f} MB"
    )
    shown = [ResultTable(f"{title}; {about}", ["what", "s", "of a step"], rows)]
    if asked := result.get("agreement"):
        question = statistics.median(asked)
        rows = [["a question, asked once a second", f"{1000 * question:.2f}", f"{question:.2%}"]]
        shown.append(ResultTable("Two workers on this machine", ["what", "ms", "of the time"], rows))
    return shown


if __name__ == "__main__":
    ask(Path(sys.argv[1]))

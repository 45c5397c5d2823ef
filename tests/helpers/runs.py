"""Small runs, and what their folders hold."""

import csv
import dataclasses
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from inception_v1 import GoogLeNet
from inception_v1.dependencies import channels
from inception_v1.spec import read_spec
from training.data.pipeline import Position
from training.presets import PRESETS
from training.run_folder import RunFolder
from training.run_state import State, read_position
from training.task import recipe_spec

DIGITS = [str(digit) for digit in range(10)]
# The naive modules have half of the convolutions, and so take half of the time until the first step. There is no
# dropout, of which each replica would drop other units.
NAIVE = Path(__file__).with_name("naive.json")
FLAGS = [
    *("--spec", str(NAIVE), "--epochs", "2", "--warmup-epochs", "0.5"),
    *("--train-split", "train[:200]", "--validation-split", "test[:37]", "--test-split", "test[:9]"),  # odd sizes
]
TWO_CPUS = (
    "import tensorflow as tf\n"
    "cpu = tf.config.list_physical_devices('CPU')[0]\n"
    "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
)
MAIN = "import sys, googlenet\nfor line in sys.argv[1:]:\n    assert googlenet.main(line.split()) == 0\n"

PREEMPTED = """
import os, signal, sys, googlenet
from training import callbacks

original = callbacks.StopOnDivergence.on_train_batch_end

def send_signal(self, batch, logs=None):
    original(self, batch, logs)
    if batch == 1:
        os.kill(os.getpid(), signal.SIGTERM)

for line in sys.argv[1:]:
    if line.startswith("preempted "):
        line = line.removeprefix("preempted ")
        callbacks.StopOnDivergence.on_train_batch_end = send_signal
        assert googlenet.main(line.split()) == 143
        callbacks.StopOnDivergence.on_train_batch_end = original
    assert googlenet.main(line.split()) == 0
"""  # as MAIN; a command after the word "preempted" gets SIGTERM in its second step, and is given again


def save_run(folder, data_dir, classes=DIGITS, model=True, **changes):
    """Makes the folder of a run on digits. Its network is not trained; larger last kernels spread its logits."""
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, width_multiplier=0.1, **changes)
    spec, run = recipe_spec(recipe, 1, len(classes)), RunFolder(folder)
    run.create(recipe, spec, classes)
    if model:
        network = GoogLeNet(**spec.to_dict())
        for weight in network.weights:
            if weight.shape == (*weight.shape[:1], len(classes)):
                weight.assign(weight * 1000)
        network.save(run / "best.keras")
    rows = "".join(f"{epoch},{2 - epoch},0.5,{3 - epoch},{0.25 * epoch}\n" for epoch in range(3))
    (run / "history.csv").write_text(f"epoch,loss,main_accuracy,val_loss,val_main_accuracy\n{rows}")
    return folder


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def weights(folder, file="best.keras"):
    """Name to array of the weights that a run saved, a kernel and more for each convolution."""
    found = {}
    with zipfile.ZipFile(folder / file) as archive, archive.open("model.weights.h5") as stored:
        h5py.File(stored).visititems(
            lambda name, entry: found.update({name: entry[()]}) if isinstance(entry, h5py.Dataset) else None
        )
    assert len(found) >= 2 * len(channels(read_spec(folder / "spec.json")))
    return found


def check_equal(folder, expected, tolerance=1e-6):
    """Checks the weights up to the tolerance, and every number of every epoch up to ten times that."""
    one, other = weights(expected), weights(folder)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=0, atol=tolerance, err_msg=name)
    rows = history(expected)
    assert len(history(folder)) == len(rows)
    for row, wanted in zip(history(folder), rows):
        assert row == pytest.approx(wanted, rel=0, abs=10 * tolerance)
        # The accuracy is a fraction of whole images.
        assert row["val_main_accuracy"] * 37 == pytest.approx(round(wanted["val_main_accuracy"] * 37), abs=1e-9)


def check_identical(folder, expected, files=("best.keras",)):
    """Checks that weights, and every number of every epoch, are bitwise identical."""
    assert (folder / "history.csv").read_bytes() == (expected / "history.csv").read_bytes()
    for file in files:
        one, other = weights(expected, file), weights(folder, file)
        assert [name for name in one | other if not np.array_equal(one[name], other[name])] == []


def saved_position(folder):
    """(epochs, steps of the next) that are done where a run would resume."""
    position = read_position(RunFolder(folder))
    return position.epoch, position.step


def state_at(epoch, step):
    """A small state that differs from those of other positions."""
    variables = [np.arange(2000.0) + epoch + step / 100, np.array([epoch, step], "int64")]
    return State(Position(epoch, step), variables, ("default", 1), ["x"], {"loss": 0.1 + step}, [(0.5, None)], [])

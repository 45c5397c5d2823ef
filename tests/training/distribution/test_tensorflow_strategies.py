"""Runs whose devices share their steps end as one device does; for those of several machines see `test_faults`."""

import dataclasses
import importlib
import sys

import keras
import numpy as np
import pytest

import googlenet
from inception_v1.spec import read_spec
from tests.helpers.processes import done
from tests.helpers.runs import FLAGS, PREEMPTED, TWO_CPUS, check_equal, check_identical, history, metrics
from training.presets import PRESETS
from training.run_folder import RunFolder
from training.task import recipe_spec
from training.train import compile_model

OWN_STATE = """
import keras, numpy as np
from training.distribution.choose import make_strategy

strategy = make_strategy("mirrored")
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
own = strategy.read_local(model, metrics=True)
assert len(own) == 2 * (2 + len(model.metrics_variables)) > 4
assert len(strategy.read_local(model, metrics=False)) == 4
values = [np.full_like(value, number + 1) for number, value in enumerate(own)]
strategy.write_local(model, values)
assert all(map(np.array_equal, strategy.read_local(model, metrics=True), values))
assert float(np.asarray(model.metrics_variables[0])) == 5 + 6
"""  # each replica has running statistics and partial metrics of its own


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def one(root, data_dir):
    """The run of one device, whose batch is that of all replicas of the others."""
    assert googlenet.main(["train", *FLAGS, "--data-dir", data_dir, "--out", str(root / "one")]) == 0
    return root / "one"


def test_the_weights_of_one_device_move_by_more_than_what_counts_as_equal(one):
    recipe = RunFolder(one).recipe()
    keras.utils.set_random_seed(recipe.seed)
    before = compile_model(recipe, read_spec(one / "spec.json"), 3, {"main": 1.0})
    after = keras.saving.load_model(one / "best.keras", compile=False)
    moved = [abs(a - b).max() for a, b in zip(before.get_weights(), after.get_weights()) if a.ndim == 4]
    assert np.median(moved) > 1e-4


def test_mirrored_devices_end_as_one_and_a_preempted_run_resumes_within_its_epoch(one, root, data_dir):
    flags = ["train", *FLAGS, "--data-dir", data_dir, "--strategy", "mirrored", "--batch-size", "32", "--deterministic"]
    commands = [[*flags, "--out", root / "mirrored"], ["preempted", *flags, "--out", root / "preempted"]]
    lines = [" ".join(map(str, command)) for command in commands]
    done([sys.executable, "-c", TWO_CPUS + PREEMPTED + OWN_STATE, *lines])
    check_equal(root / "mirrored", one)
    assert (metrics(root / "mirrored")["strategy"], metrics(root / "mirrored")["replicas"]) == ("mirrored", 2)
    check_identical(root / "preempted", root / "mirrored")


def test_a_run_that_was_interrupted_after_its_last_epoch_only_reports(tmp_path, data_dir, monkeypatch, capsys):
    flags = ["train", *FLAGS, "--epochs", "1", "--data-dir", data_dir, "--out", str(tmp_path / "run")]

    def fill_disk(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        module = importlib.import_module("training.train")  # whose name in the package is its function
        patch.setattr(module, "_test", fill_disk)
        assert googlenet.main([*flags, "--strategy", "mirrored"]) == 1
    before = history(tmp_path / "run")
    assert googlenet.main([*flags, "--strategy", "mirrored"]) == 0
    assert (metrics(tmp_path / "run")["status"], metrics(tmp_path / "run")["images"]) == ("finished", 9)
    assert history(tmp_path / "run") == before
    assert len(before) == 1


@pytest.mark.usefixtures("all_blocks")
def test_batch_normalization_is_synchronized_as_the_recipe_says(data_dir):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, width_multiplier=0.1, aux=False)
    for wanted in (False, True):
        changed = dataclasses.replace(recipe, sync_batch_norm=wanted)
        model = compile_model(changed, recipe_spec(changed, 1, 10), 3, {"main": 1.0})
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert len(layers) > 50
        assert {layer.synchronized for layer in layers} == {wanted}

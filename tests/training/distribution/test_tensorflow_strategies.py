"""Runs whose devices share their steps end as one device does; for those of several machines see `test_faults`."""

import dataclasses
import importlib
import sys

import keras
import numpy as np
import pytest

import googlenet
from tests.helpers.processes import done
from tests.helpers.runs import FLAGS, MAIN, PREEMPTED, TWO_CPUS, check_equal, check_identical, history, metrics
from training.presets import PRESETS
from training.run_folder import RunFolder
from training.task import recipe_spec
from training.train import compile_model


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
    before = compile_model(recipe, recipe_spec(recipe, 1, 10), 3, {"main": 1.0})
    after = keras.saving.load_model(one / "best.keras", compile=False)
    moved = [abs(a - b).max() for a, b in zip(before.get_weights(), after.get_weights()) if a.ndim == 4]
    assert np.median(moved) > 1e-4


def test_mirrored_devices_end_as_one(one, root, data_dir):
    folder = root / "mirrored"
    flags = ["train", *FLAGS, "--data-dir", data_dir, "--strategy", "mirrored", "--batch-size", "32", "--out", folder]
    done([sys.executable, "-c", TWO_CPUS + MAIN, " ".join(map(str, flags))])
    check_equal(folder, one)
    assert (metrics(folder)["strategy"], metrics(folder)["replicas"]) == ("mirrored", 2)


def test_a_preempted_run_on_mirrored_devices_resumes_within_its_epoch(root, data_dir):
    """The running statistics of each, which evaluates its part of the images with them, are part of the state."""
    flags = ["train", *FLAGS, "--variant", "batchnorm", "--epochs", "1", "--deterministic", "--data-dir", data_dir]
    flags += ["--strategy", "mirrored", "--batch-size", "32", "--out"]
    commands = [" ".join(map(str, [*word, *flags, root / name])) for word, name in (([], "bn"), (["preempted"], "cut"))]
    done([sys.executable, "-c", TWO_CPUS + PREEMPTED, *commands])
    check_identical(root / "cut", root / "bn")


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


def test_batch_normalization_is_synchronized_as_the_recipe_says(data_dir):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, width_multiplier=0.1, aux=False)
    for wanted in (False, True):
        changed = dataclasses.replace(recipe, sync_batch_norm=wanted)
        model = compile_model(changed, recipe_spec(changed, 1, 10), 3, {"main": 1.0})
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert len(layers) > 50
        assert {layer.synchronized for layer in layers} == {wanted}

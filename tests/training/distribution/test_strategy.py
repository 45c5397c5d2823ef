"""Runs that share their steps end as one device does; several machines are processes on this one."""

import csv
import dataclasses
import json
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest

import googlenet
from tests.helpers import ROOT
from tests.inception_v1.test_keras_patches import processes
from training import recipe as recipes
from training import train
from training.data import pipeline, sources
from training.distribution import strategy
from training.recipe import PRESETS
from training.run_folder import RunFolder
from training.train import compiled

FLAGS = [
    *("--variant", "plain", "--width-multiplier", "0.1", "--no-aux", "--epochs", "2", "--warmup-epochs", "0.5"),
    *("--dropout", "0"),  # each replica drops other units
    *("--train-split", "train[:200]", "--validation-split", "test[:37]", "--test-split", "test[:9]"),  # odd sizes
]
FAST_JAX = {  # XLA's optimisation takes most of the time here, and the same programs come again
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
TWO_CPUS = (
    "import tensorflow as tf\n"
    "cpu = tf.config.list_physical_devices('CPU')[0]\n"
    "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
)
MAIN = "import sys, googlenet\nfor line in sys.argv[1:]:\n    assert googlenet.main(line.split()) == 0\n"


def done(command, environment=None, timeout=300):
    """What a command printed that must end well."""
    with processes([(command, {"PYTHONPATH": str(ROOT), **(environment or {})})]) as (process,):
        output = process.communicate(timeout=timeout)[0]
        assert process.returncode == 0, output[-3000:]
    return output


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def weights(folder, file="best.keras"):
    """Name to array of what a run kept."""
    found = {}
    with zipfile.ZipFile(folder / file) as archive, archive.open("model.weights.h5") as stored:
        h5py.File(stored).visititems(
            lambda name, entry: found.update({name: entry[()]}) if isinstance(entry, h5py.Dataset) else None
        )
    return found


def check_equal(folder, expected, tolerance=1e-6):
    """Weights within the tolerance, and every number of every epoch within ten times that."""
    one, other = weights(expected), weights(folder)
    assert one.keys() == other.keys()
    assert len(one) > 100
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=0, atol=tolerance, err_msg=name)
    rows = history(expected)
    assert len(history(folder)) == len(rows)
    for row, wanted in zip(history(folder), rows):
        assert row == pytest.approx(wanted, rel=0, abs=10 * tolerance)
        # The share of right answers is that of whole images.
        assert row["val_main_accuracy"] * 37 == pytest.approx(round(wanted["val_main_accuracy"] * 37), abs=1e-9)


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
    before = compiled(recipe, recipes.network(recipe, 1, 10), 3, {"main": 1.0})
    after = keras.saving.load_model(one / "best.keras", compile=False)
    moved = [abs(a - b).max() for a, b in zip(before.get_weights(), after.get_weights()) if a.ndim == 4]
    assert np.median(moved) > 1e-4


def test_mirrored_devices_end_as_one(one, root, data_dir):
    folder = root / "mirrored"
    flags = ["train", *FLAGS, "--data-dir", data_dir, "--strategy", "mirrored", "--batch-size", "32", "--out", folder]
    done([sys.executable, "-c", TWO_CPUS + MAIN, " ".join(map(str, flags))])
    check_equal(folder, one)
    assert (metrics(folder)["strategy"], metrics(folder)["replicas"]) == ("mirrored", 2)


def test_a_run_that_broke_off_after_its_last_epoch_only_reports(tmp_path, data_dir, monkeypatch, capsys):
    flags = ["train", *FLAGS, "--epochs", "1", "--data-dir", data_dir, "--out", str(tmp_path / "run")]

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(train, "_finish", full)
        assert googlenet.main([*flags, "--strategy", "mirrored"]) == 1
    before = history(tmp_path / "run")
    assert googlenet.main([*flags, "--strategy", "mirrored"]) == 0
    assert (metrics(tmp_path / "run")["status"], metrics(tmp_path / "run")["images"]) == ("finished", 9)
    assert history(tmp_path / "run") == before
    assert len(before) == 1


def test_two_workers_end_as_one_device(one, root, data_dir):
    folder = root / "workers"
    flags = [*FLAGS, "--data-dir", data_dir, "--batch-size", "32", "--out", folder]
    output = done([sys.executable, ROOT / "googlenet.py", "launch", "--workers", "2", "train", *flags])
    check_equal(folder, one)
    assert (metrics(folder)["strategy"], metrics(folder)["replicas"]) == ("multiworker", 2)
    assert output.count("epoch   2/2") == output.count("run folder: ") == 1  # the chief's alone
    assert len(list(folder.glob("tensorboard/**/events*"))) == len(list(one.glob("tensorboard/**/events*")))
    assert metrics(folder)["heads"]["main"]["loss"] == pytest.approx(metrics(one)["heads"]["main"]["loss"], abs=1e-5)


@pytest.fixture(scope="module")
def on_jax(root, data_dir):
    """The runs of one device, of two, and of two processes with one each."""
    pytest.importorskip("jax")
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"} | FAST_JAX
    environment["JAX_COMPILATION_CACHE_DIR"] = str(root / "compiled")
    common = [*FLAGS, "--data-dir", data_dir]
    shared = ["--strategy", "data-parallel", "--batch-size", "32"]
    runs = [["train", *common, "--out", root / "jax"], ["train", *common, *shared, "--out", root / "jax-devices"]]
    done(
        [sys.executable, "-c", MAIN, *(" ".join(map(str, run)) for run in runs)],
        {**environment, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    )
    flags = ["launch", "--workers", "2", "train", *common, *shared, "--out", root / "jax-processes"]
    done([sys.executable, ROOT / "googlenet.py", *flags], environment)
    return root


@pytest.mark.parametrize("shared", ["jax-devices", "jax-processes"])
def test_devices_of_jax_end_as_one(on_jax, shared):
    check_equal(on_jax / shared, on_jax / "jax")
    assert (metrics(on_jax / shared)["strategy"], metrics(on_jax / shared)["replicas"]) == ("data-parallel", 2)


def test_processes_of_several_devices_take_what_these_share_evenly(data_dir):
    """130 images are less than a batch: 32 for each of four devices, of which this process, the second, has two."""
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, batch_size=256, epochs=1)
    builder, _ = sources.load(recipe)
    engine = object.__new__(strategy.DataParallel)
    engine.replicas, engine.index, engine._processes = 4, 1, 2

    def make(share):
        return pipeline.batches(builder, "train[:130]", recipe, training=True, share=share)

    (images, labels), *more = engine.dataset(make).as_numpy_iterator()
    pieces = list(make(pipeline.Share(2, 2, 4)).as_numpy_iterator())
    assert (len(images), len(pieces), more) == (64, 2, [])
    np.testing.assert_array_equal(images, np.concatenate([piece[0] for piece in pieces]))
    np.testing.assert_array_equal(labels, np.concatenate([piece[1] for piece in pieces]))


def test_synchronized_batch_normalisation_is_the_recipes(data_dir):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, width_multiplier=0.1, aux=False)
    for wanted in (False, True):
        changed = dataclasses.replace(recipe, sync_batch_norm=wanted)
        model = compiled(changed, recipes.network(changed, 1, 10), 3, {"main": 1.0})
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert len(layers) > 50
        assert {layer.synchronized for layer in layers} == {wanted}


def test_an_unknown_strategy_and_one_of_the_other_backend_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"strategy='mirorred'\. Did you mean 'mirrored'"):
        strategy.make("mirorred")
    with pytest.raises(ValueError, match="=jax for strategy 'data-parallel'; Received: Keras on tensorf"):
        strategy.make("data-parallel")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for name in ("mirrored", "multiworker", "tpu"):
        with pytest.raises(ValueError, match=f"KERAS_BACKEND=tensorflow for strategy '{name}'; Received: Keras on jax"):
            strategy.make(name)


def test_a_machine_without_a_tpu_says_so():
    with pytest.raises(ValueError, match=r"a TPU for strategy 'tpu'; Received: none \(.+\)\. .*KERAS_BACKEND=jax"):
        strategy.make("tpu")


CLUSTER = {"worker": ["localhost:1", "localhost:2"]}


@pytest.mark.parametrize(
    ("config", "received"),
    [
        (None, "TF_CONFIG=None"),
        ("{", "TF_CONFIG='{'"),
        ("[]", "TF_CONFIG='[]'"),
        ('{"cluster": 3}', "cluster"),
        ("{}", "jobs none"),
        (json.dumps({"cluster": CLUSTER}), "task"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": 2}}), "index"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "chief", "index": 0}}), "chief"),
        (json.dumps({"cluster": {"ps": ["localhost:1"]}, "task": {"type": "ps", "index": 0}}), "jobs"),
    ],
)
def test_a_tf_config_that_names_no_cluster_is_refused(config, received, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=r"(?s)TF_CONFIG to name a cluster with worker .*; Received: .*") as error:
        strategy.make("multiworker", 0.1)
    assert received in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("backend", "environment", "name"),
    [
        ("tensorflow", {}, "default"),
        ("tensorflow", {"TF_CONFIG": "{}"}, "default"),
        ("tensorflow", {"TF_CONFIG": json.dumps({"cluster": CLUSTER})}, "multiworker"),
        ("tensorflow", {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "default"),
        ("tensorflow", {"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}'}, "multiworker"),
        (
            "tensorflow",
            {"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}}'},
            "parameter-server",
        ),
        ("tensorflow", {"SLURM_STEP_NUM_TASKS": "2"}, "multiworker"),
        ("tensorflow", {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, "default"),
        ("jax", {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, "data-parallel"),
        ("jax", {"TF_CONFIG": json.dumps({"cluster": CLUSTER})}, "default"),
    ],
)
def test_the_environment_chooses(backend, environment, name, monkeypatch):
    for variable in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "KERAS_DISTRIBUTION_NUM_PROCESSES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(strategy, "_made", lambda name, timeout: strategy.Engine())
    assert strategy.make().name == name


@pytest.mark.parametrize("config", ["{", "[]", '{"cluster": 3}', '{"cluster": {"worker": 3}}'])
def test_a_broken_tf_config_is_refused_whatever_the_strategy(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=r"Expected TF_CONFIG .*; Received: "):
        strategy.make()

"""Runs on JAX whose devices share their steps end as one device does."""

import dataclasses
import sys

import numpy as np
import pytest

from tests.helpers.blocks import ENTER
from tests.helpers.processes import command, done, start
from tests.helpers.runs import FLAGS, PREEMPTED, check_equal, check_identical, metrics
from training.data import sources
from training.data.pipeline import Batches, Shard
from training.data.split import Split
from training.distribution.jax_strategy import DataParallel
from training.presets import PRESETS

FAST_JAX = {  # XLA's optimization takes most of the time here, and the same programs are compiled several times
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory, data_dir):
    """The runs of one device, of two, and of two processes with one each; the first two preempted as well."""
    pytest.importorskip("jax")
    root = tmp_path_factory.mktemp("jax")
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"} | FAST_JAX
    environment["JAX_COMPILATION_CACHE_DIR"] = str(root / "compiled")
    common = [*FLAGS, "--data-dir", data_dir]
    shared = ["--strategy", "data-parallel", "--batch-size", "32"]
    runs = [
        [*words, "train", *flags, "--out", root / f"{name}{'-'.join(['', *words])}"]
        for name, flags in (("jax", common), ("jax-devices", [*common, *shared]))
        for words in ([], ["preempted"])
    ]
    done(
        [sys.executable, "-c", ENTER + PREEMPTED, *(" ".join(map(str, run)) for run in runs)],
        {**environment, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        start=start,
    )
    flags = ["launch", "--workers", "2", "train", *common, *shared, "--out", root / "jax-processes"]
    done(command(flags), environment, start=start)
    return root


@pytest.mark.parametrize("shared", ["jax-devices", "jax-processes"])
def test_devices_of_jax_end_as_one(on_jax, shared):
    check_equal(on_jax / shared, on_jax / "jax")
    assert (metrics(on_jax / shared)["strategy"], metrics(on_jax / shared)["replicas"]) == ("data-parallel", 2)


@pytest.mark.parametrize("name", ["jax", "jax-devices"])
def test_a_preempted_run_on_jax_resumes_within_its_epoch(on_jax, name):
    check_identical(on_jax / f"{name}-preempted", on_jax / name)


def test_processes_of_several_devices_take_what_these_share_evenly(data_dir):
    """130 images are less than a batch: 32 for each of four devices, of which this process, the second, has two."""
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, batch_size=256, epochs=1)
    batches = Batches(Split(sources.load(recipe).train.builder, "train[:130]"), recipe)
    strategy = object.__new__(DataParallel)
    strategy.replicas, strategy.index, strategy.processes = 4, 1, 2

    def make(shard):
        return batches.training(shard=shard)

    (images, labels), *more = strategy.dataset(make).as_numpy_iterator()
    per_replica = list(make(Shard(2, 2, 4)).as_numpy_iterator())
    assert (len(images), len(per_replica), more) == (64, 2, [])
    np.testing.assert_array_equal(images, np.concatenate([batch[0] for batch in per_replica]))
    np.testing.assert_array_equal(labels, np.concatenate([batch[1] for batch in per_replica]))

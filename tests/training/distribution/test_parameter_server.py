"""Asynchronous SGD: its step compared with Keras' own, and clusters of real processes that are killed."""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_v1 import Spec
from tests.helpers.forked import ForkedProcess
from tests.helpers.processes import command, free_ports
from tests.helpers.runs import NAIVE, saved_position
from training.data.pipeline import Position
from training.distribution.parameter_server import ParameterServer, _ServerReplica
from training.errors import UserError
from training.presets import PRESETS
from training.recipe import Recipe
from training.train import compile_model

RECIPES = {
    "nesterov, decoupled decay": Recipe(weight_decay=5e-2, schedule="staircase", aux=False),
    "Caffe": dataclasses.replace(PRESETS["paper"], source="digits", l2=2e-2, average=0.9, label_smoothing=0.1),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_step_without_others_is_that_of_keras(recipe):
    """Weights, running statistics, velocities, moving averages and the counter after four steps, warm-up included."""
    spec = Spec(
        "batchnorm", input_shape=(32, 32, 1), classes=10, aux=recipe.aux, width_multiplier=0.1, dropout=(0.0, 0.0)
    )
    recipe = dataclasses.replace(recipe, epochs=4, warmup_epochs=1)
    weights = {head: 1.0 if head == "main" else 0.3 for head in spec.heads}
    model = compile_model(recipe, spec, 2, weights)
    images = np.random.default_rng(0).normal(size=(4, 8, 32, 32, 1)).astype("float32")
    labels = np.random.default_rng(1).integers(10, size=(4, 8))
    ds = tf.data.Dataset.from_tensor_slices((images, labels))
    model.create_training_variables(images[0], labels[0])  # so that its step is traced once, and not twice
    replica = _ServerReplica(model, tf.distribute.get_strategy(), iter(ds))
    copy = compile_model(recipe, spec, 2, weights)
    logs = []
    for step in range(4):
        replica.step(replica.batches)
        model.reset_metrics()
        logs.append(model.train_on_batch(images[step], labels[step], return_dict=True))
    means = {name: np.mean([float(log[name]) for log in logs]) for name in logs[0]}
    means.setdefault("main_loss", means["loss"])  # Keras leaves it out of a network with one head
    assert replica.logs() == pytest.approx(means, abs=1e-5)
    assert replica.done() == 4
    replica.copy_to(copy)
    assert replica.staleness() == {"updates": 4, "staleness": {"mean": 0.0, "max": 0}}
    for own, other in zip(_state(copy), _state(model), strict=True):
        np.testing.assert_allclose(own, other, atol=2e-6, err_msg=own.path)


def _state(model):
    return [*model.variables, *model.optimizer.variables]


def test_staleness_counts_what_others_did_in_between():
    """Every variable's update counts once more between a worker's read of the counter and its own count."""
    spec = Spec("plain", input_shape=(32, 32, 1), classes=10, width_multiplier=0.1)
    model = compile_model(Recipe(), spec, 2, {"main": 1.0, "aux1": 0.3, "aux2": 0.3})
    image = tf.zeros((2, 32, 32, 1))

    def examples():
        yield image, tf.constant([1, 2])

    ds = tf.data.Dataset.from_generator(
        examples, output_signature=(tf.TensorSpec((2, 32, 32, 1)), tf.TensorSpec(2, tf.int32))
    )
    replica = _ServerReplica(model, tf.distribute.get_strategy(), iter(ds))
    apply = replica._update

    def update_late(*arguments):
        with tf.control_dependencies([arguments[0]]):  # once there is a gradient
            return tf.group(replica._optimizer.iterations.value.assign_add(1, read_value=False), apply(*arguments))

    replica._update = update_late
    replica.step(replica.batches)
    others = len(model.trainable_variables)
    assert replica.staleness() == {"updates": others + 1, "staleness": {"mean": others, "max": others}}
    operations = replica.step.get_concrete_function(replica.batches).graph.get_operations()
    counts = [each for each in operations if each.type == "Pack" and each.outputs[0].shape == (2 + 3 * 3,)]
    waits = {one.type for each in counts for one in each.control_inputs}
    assert "ResourceCountUpTo" in waits  # the step's own count waits for its updates


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        (None, {"loss": 2.5, "main_loss": 2.0, "main_accuracy": 0.5, "main_top5_accuracy": 1.0}),
        ({"loss": 9.0}, {"loss": 9.0}),
    ],
)
def test_a_run_that_resumes_after_the_last_step_of_an_epoch_has_its_numbers(logs, expected):
    """From the logs of the state, or from the sums of one that was copied while the workers finished the epoch."""
    small = Spec("plain", input_shape=(32, 32, 1), classes=10, width_multiplier=0.1, aux=False)
    model = compile_model(Recipe(aux=False), small, 2, {"main": 1.0})
    strategy = object.__new__(ParameterServer)
    strategy._replica = _ServerReplica(model, tf.distribute.get_strategy(), iter([]))
    found = []
    resume = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, _: strategy.write_local(model, [np.float32([2, 5, 4, 1, 2])]),
        on_epoch_end=lambda epoch, logs: found.append(logs),
    )
    called = keras.callbacks.CallbackList([resume], model=model)
    strategy._train(model, strategy._replica, Position(0, 2), 1, 2, called, logs)
    assert found == [expected]


@pytest.mark.parametrize(
    "change", [{"deterministic": True}, {"aux_schedule": "linear"}, {"precision": "mixed_float16"}]
)
def test_what_cannot_be_asynchronous_is_refused(change):
    strategy = object.__new__(ParameterServer)
    strategy.name = "parameter-server"
    with pytest.raises(UserError, match=f"Expected another {next(iter(change))} under strategy 'parameter-server'"):
        strategy.check(dataclasses.replace(Recipe(), **change))


ON_ONE_CORE = """
import os, sys, googlenet
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.exit(googlenet.main(sys.argv[1:]))
"""  # as on a machine with a single one, where waiting for a batch once held up all other work


class Cluster:
    """A chief, a worker and a parameter server as processes, each in its own process group."""

    def __init__(self, flags, log):
        ports = free_ports(3)
        jobs = dict(zip(("chief", "worker", "ps"), ([f"127.0.0.1:{port}"] for port in ports), strict=True))
        self._flags, self._cluster, self._log = flags, jobs, log
        self.tasks = {}
        for job in jobs:
            self.start(job)

    def start(self, job):
        task = json.dumps({"cluster": self._cluster, "task": {"type": job, "index": 0}})
        argv = [sys.executable, "-c", ON_ONE_CORE, *self._flags] if job == "worker" else command(self._flags)
        self.tasks[job] = ForkedProcess(argv, {"TF_CONFIG": task}, self._log)

    def kill(self, job):
        os.killpg(self.tasks[job].pid, signal.SIGKILL)
        self.tasks[job].wait()

    def wait(self, job, seconds=60):
        return self.tasks[job].wait(timeout=seconds)

    def until(self, text, seconds=90):
        end = time.monotonic() + seconds
        while text not in self._log.read_text():
            assert time.monotonic() < end, self._log.read_text()[-3000:]
            assert self.tasks["chief"].poll() is None, self._log.read_text()[-3000:]
            time.sleep(0.1)


@contextlib.contextmanager
def cluster(flags, log):
    log.write_text("")
    processes = Cluster(flags, log)
    try:
        yield processes
    finally:
        for process in processes.tasks.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_run_outlives_each_of_its_processes(data_dir, tmp_path):
    """The chief is preempted, then the parameter server and a worker are killed; at the end no step is lost."""
    flags = ["train", "--out", str(tmp_path / "run"), "--data-dir", data_dir, "--cluster-timeout", "60"]
    flags += ["--spec", str(NAIVE), "--epochs", "4", "--train-split", "train[:640]"]
    flags += ["--batch-size", "32", "--validation-split", "test[:67]", "--test-split", "test[:67]"]
    log = tmp_path / "log"

    with cluster(flags, log) as processes:
        processes.until("epoch   1/4")
        processes.tasks["chief"].terminate()
        assert processes.wait("chief") == 143, log.read_text()[-3000:]
        assert processes.wait("worker") == 0
        assert processes.wait("ps") == 0
    epoch, step = saved_position(tmp_path / "run")
    assert epoch == 1
    assert 0 < step <= 20
    with cluster(flags, log) as processes:
        processes.until("epoch   2/4")
        assert "epoch   1/4" not in log.read_text()
        processes.kill("ps")
        assert processes.wait("chief") == 3, log.read_text()[-3000:]
        assert "googlenet: error: lost ps 0 at 127.0.0.1:" in log.read_text()
        assert "same command on all machines to resume" in log.read_text()
        assert processes.wait("worker") == 0
    with cluster(flags, log) as processes:
        processes.until("epoch   3/4")
        assert "epoch   2/4" not in log.read_text()
        processes.kill("worker")
        processes.start("worker")
        assert processes.wait("chief", 120) == 0, log.read_text()[-3000:]
        assert processes.wait("ps") == 0
        assert processes.wait("worker") == 0
        assert "AutoGraph" not in log.read_text()

    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["status"], metrics["epochs"], metrics["strategy"]) == ("finished", 4, "parameter-server")
    assert 4 * 20 <= metrics["updates"] <= 4 * 20 + 2  # a step that was nearly done may have counted twice
    assert metrics["staleness"] == {"mean": 0.0, "max": 0}  # one worker waits for nobody
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 5
    assert keras.saving.load_model(tmp_path / "run" / "best.keras", compile=False).spec.width_multiplier == 0.1

"""The devices of one process, or of several machines, by `tf.distribute`."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from training.data.pipeline import Shard
from training.distribution.cluster import (
    HEARTBEAT,
    LOST,
    await_all,
    bound_silence,
    ended_by_signals,
    find_lost,
    first_line,
    loss_message,
)
from training.distribution.handshake import Handshake
from training.distribution.strategy import Strategy
from training.errors import ClusterError, UserError


class TensorFlowStrategy(Strategy):
    """The devices of this process, by a strategy of `tf.distribute`."""

    def __init__(self, name: str, strategy: tf.distribute.Strategy) -> None:
        self.name, self._strategy = name, strategy
        self.replicas = strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self._strategy.scope()

    def dataset(self, make: Callable[[Shard], tf.data.Dataset]) -> tf.distribute.DistributedDataset:
        local = len(self._strategy.extended.worker_devices)
        shard = Shard(self.index * local, local, self.replicas)
        return self._strategy.distribute_datasets_from_function(lambda _: make(shard))

    def read_local(self, model: GoogLeNet, metrics: bool) -> list[np.ndarray]:
        return [np.array(own) for own in self._local(model, metrics)]

    def write_local(self, model: GoogLeNet, values: Sequence[np.ndarray]) -> None:
        for own, value in zip(self._local(model, metrics=True), values):  # where there are no metrics, only the others
            own.assign(value)

    def _local(self, model: GoogLeNet, metrics: bool) -> list[tf.Variable]:
        """What each replica of this process has of its own: running statistics, and the epoch's metrics so far."""
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        variables = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
        variables += model.metrics_variables if metrics else []
        return [own for variable in variables for own in self._strategy.experimental_local_results(variable.value)]


class MultiWorker(TensorFlowStrategy):
    """The devices of several machines, by `tf.distribute.MultiWorkerMirroredStrategy`."""

    def __init__(self, name: str, resolver: tf.distribute.cluster_resolver.ClusterResolver, timeout: float) -> None:
        spec = resolver.cluster_spec()
        self._addresses = [*spec.as_dict().get("chief", []), *spec.as_dict().get("worker", [])]
        self.index = self._addresses.index(spec.task_address(resolver.task_type, resolver.task_id))
        self.processes = len(self._addresses)
        left = self._meet_others(timeout)
        bound_silence(spec, max(left, HEARTBEAT))
        with self.detect_failures(), ended_by_signals():
            super().__init__(name, tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver))
        self._total = tf.function(lambda counts: self._strategy.reduce(tf.distribute.ReduceOp.SUM, counts, axis=None))

    def _meet_others(self, timeout: float) -> float:
        """Waits for the others, who see this process meanwhile. Returns the seconds that are left."""
        tasks = {f"worker {index}": where for index, where in enumerate(self._addresses)}
        own = f"worker {self.index}"
        try:
            handshake = Handshake(tasks, own)
        except OSError as error:
            raise UserError(
                f"Expected a free port for this worker; Received: {tasks[own]} ({error.strerror})."
            ) from None
        with handshake.answering():
            return await_all(self._others(), timeout, handshake.find_problem)

    def shard(self) -> Shard:
        return Shard(self.index, 1, self.processes)

    def gather(self, text: str) -> list[str]:
        # As numbers, since collectives carry no strings. Each device of a process sends the same.
        codes = np.frombuffer(json.dumps([self.index, text]).encode(), "uint8").astype("int32")
        lengths = self._gathered(np.array([len(codes)], "int32"))
        messages = np.split(self._gathered(codes), np.cumsum(lengths)[:-1])
        by_index = dict(json.loads(codes.astype("uint8").tobytes()) for codes in messages)
        return [by_index[index] for index in sorted(by_index)]

    def total(self, counts: Sequence[int]) -> list[int]:
        local = self.replicas // self.processes
        distributed = self._strategy.experimental_distribute_values_from_function(
            lambda place: tf.constant(counts, tf.int32) * int(place.replica_id_in_sync_group % local == 0)
        )
        return self._total(distributed).numpy().tolist()

    def _gathered(self, values: np.ndarray) -> np.ndarray:
        distributed = self._strategy.experimental_distribute_values_from_function(lambda _: tf.constant(values))
        return self._strategy.gather(distributed, axis=0).numpy()

    @contextlib.contextmanager
    def detect_failures(self) -> Iterator[None]:
        try:
            yield
        except LOST as error:
            raise ClusterError(loss_message(find_lost(self._others()), error)) from error

    def _others(self) -> dict[str, str]:
        return {f"worker {index}": where for index, where in enumerate(self._addresses) if index != self.index}


def connect_tpu() -> tf.distribute.Strategy:
    """The strategy of this machine's TPU. Raises UserError where there is none."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu="")
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"Expected a TPU for strategy 'tpu'; Received: none ({first_line(error)}). On a TPU machine take "
            "KERAS_BACKEND=jax and data-parallel, or an installation of tensorflow-tpu."
        ) from None

"""The devices of one or several processes, by `keras.distribution` on JAX."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from training.data.pipeline import Shard
from training.distribution.cluster import first_line, loss_message
from training.distribution.strategy import MakeBatches, Strategy
from training.errors import ClusterError


class DataParallel(Strategy):
    """The devices of one or several processes, by `keras.distribution.DataParallel`.

    Raises:
        ClusterError: a process that did not join.
    """

    def __init__(self, name: str) -> None:
        import jax

        if count_processes() > 1 and not jax.distributed.is_initialized():
            try:
                keras.distribution.initialize()
            except jax.errors.JaxRuntimeError as error:  # after five minutes of JAX' own
                raise ClusterError(f"Expected every process; {first_line(error)}.") from error
        devices = keras.distribution.list_devices()
        self.name = name
        self._distribution = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
        self.replicas, self.index, self.processes = jax.device_count(), jax.process_index(), jax.process_count()

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self._distribution.scope()

    def shard(self) -> Shard:
        return Shard(self.index, 1, self.processes)

    def dataset(self, make: Callable[[Shard], tf.data.Dataset]) -> tf.data.Dataset:
        local = self.replicas // self.processes
        per_replica = make(Shard(self.index * local, local, self.replicas))
        return per_replica.rebatch(local * per_replica.element_spec[0].shape[0])  # Keras spreads it over these devices

    def fit(self, model: GoogLeNet, make: MakeBatches, service: str | None, **arguments: Any) -> dict[str, Any]:
        with self.scope():
            return super().fit(model, make, service, **arguments)

    def total(self, counts: Sequence[int]) -> list[int]:
        if self.processes == 1:
            return list(counts)
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(np.array(counts, "int32")).sum(axis=0).tolist()

    def gather(self, text: str) -> list[str]:
        if self.processes == 1:
            return [text]
        from jax.experimental import multihost_utils

        codes = np.frombuffer(text.encode(), "uint8")
        lengths = multihost_utils.process_allgather(np.array(len(codes)))
        filled = np.zeros(max(lengths.max(), 1), "uint8")
        filled[: len(codes)] = codes
        messages = multihost_utils.process_allgather(filled)
        return [row[:length].tobytes().decode() for row, length in zip(messages, lengths, strict=True)]

    @contextlib.contextmanager
    def detect_failures(self) -> Iterator[None]:
        import jax

        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if self.processes == 1:
                raise
            raise ClusterError(loss_message([], error)) from error


def count_processes() -> int:
    """Number of processes, according to Keras' variables, or Slurm's, which JAX reads by itself."""
    return int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)

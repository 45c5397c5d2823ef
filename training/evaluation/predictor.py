"""Predictions of every head of a network, on the devices of this process."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from training.evaluation.metrics import Predictions, image_scores

ByHead = dict[str, np.ndarray]  # probabilities


class Predictor:
    """Predicts with the weights of the last `refresh`; the network is traced once for all calls.

    Args:
        model: the network. The devices of this process that it was made for share each batch.
        training: whether it runs as in training: with the statistics of each batch, and with dropout where it has some.
    """

    def __init__(self, model: GoogLeNet, training: bool = False) -> None:
        self._heads = model.spec.heads
        forward = _JaxForward if keras.backend.backend() == "jax" else _TensorFlowForward
        self._forward: _Forward = forward(model, training)
        self.refresh()

    def refresh(self) -> None:
        """Takes the weights that the network has now."""
        self._forward.refresh()

    def __call__(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[ByHead, np.ndarray]]:
        """Runs every head on every image, a partial last batch included.

        Args:
            batches: of (images, labels); images `(batch, size, size, channels)`, or
                `(batch, crops, size, size, channels)` whose probabilities are averaged over the crops.

        Yields:
            For each batch ({head: probabilities `(batch, classes)`}, labels `(batch,)`).
        """
        devices, size = self._forward.devices, 1
        for images, labels in batches:
            images, count = np.asarray(images), len(labels)
            crops = images.shape[1] if images.ndim == 5 else 1
            size = max(size, -(-count // devices) * devices)  # a partial batch is padded: each shape is traced anew
            padded = images if count == size else images[np.arange(size) % count]
            rows = self._forward(padded.reshape(-1, *images.shape[-3:]))
            heads = {head: rows[head].reshape(size, crops, -1)[:count].mean(axis=1) for head in self._heads}
            yield heads, np.asarray(labels)


def predict(model: GoogLeNet, batches: Iterable[tuple[Any, Any]]) -> Predictions:
    """Probabilities and labels of all images in order; arguments as of `Predictor`."""
    parts = list(Predictor(model)(batches))
    by_head = {head: np.concatenate([rows[head] for rows, _ in parts]) for head in model.spec.heads}
    return Predictions(by_head, np.concatenate([labels for _, labels in parts]))


def sum_scores(predictions: Iterable[tuple[ByHead, np.ndarray]], heads: int) -> np.ndarray:
    """Sums over the images, of which the sums of several parts of a split may be added up.

    Args:
        predictions: as a `Predictor` yields them, of some batches or of none.
        heads: of the model.

    Returns:
        float64 `(heads, 4)`: images in the top 1, in the top 5, cross-entropy in nats, and the images themselves.
    """
    total = np.zeros((heads, 4))
    for rows, labels in predictions:
        scores = [image_scores(probabilities, labels).sum(axis=1) for probabilities in rows.values()]
        total += np.array([[*score, len(labels)] for score in scores])
    return total


class _Forward(Protocol):
    """The forward pass on the devices of this process, whose number divides that of the images."""

    devices: int

    def refresh(self) -> None: ...

    def __call__(self, images: np.ndarray) -> ByHead: ...


class _TensorFlowForward:
    """Reads the variables themselves, so that their weights are always those of the moment."""

    def __init__(self, model: Any, training: bool) -> None:
        # Of a partial, since TensorFlow counts the traces of a plain function over all models and warns of the fifth.
        self._step = tf.function(functools.partial(model, training=training), reduce_retracing=True)
        self._strategy = model.distribute_strategy
        on_each = self._strategy.experimental_distribute_values_from_function(lambda place: tf.constant(0))
        self.devices = len(self._local(on_each))

    def refresh(self) -> None:
        """Does nothing."""

    def __call__(self, images: np.ndarray) -> ByHead:
        parts = np.split(images, self.devices)
        distributed = self._strategy.experimental_distribute_values_from_function(
            lambda place: tf.constant(parts[place.replica_id_in_sync_group % self.devices])
        )
        rows = self._strategy.run(self._step, (distributed,))
        return {
            head: np.concatenate([part.numpy() for part in self._local(probabilities)])
            for head, probabilities in rows.items()
        }

    def _local(self, value: Any) -> tuple[Any, ...]:
        return self._strategy.experimental_local_results(value)


class _JaxForward:
    """Holds a copy of the weights on every device."""

    def __init__(self, model: GoogLeNet, training: bool) -> None:
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        mesh = jax.make_mesh((jax.local_device_count(),), ("batch",), devices=jax.local_devices())
        self._sharded, self._replicated = (
            NamedSharding(mesh, PartitionSpec("batch")),
            NamedSharding(mesh, PartitionSpec()),
        )
        self._model, self.devices = model, mesh.size
        self._step = jax.jit(lambda weights, images: model.stateless_call(*weights, images, training=training)[0])
        self._weights: Any = None

    def refresh(self) -> None:
        import jax

        parts = self._model.trainable_variables, self._model.non_trainable_variables
        self._weights = jax.device_put([[np.asarray(v) for v in part] for part in parts], self._replicated)

    def __call__(self, images: np.ndarray) -> ByHead:
        import jax

        rows = self._step(self._weights, jax.device_put(images, self._sharded))
        return {head: np.asarray(values) for head, values in rows.items()}

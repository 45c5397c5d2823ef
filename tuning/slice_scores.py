"""Scores of slices: each with batch statistics of its own, on the validation split."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from training.callbacks import mean_scores
from training.evaluation.predictor import ByHead, sum_scores
from tuning.sliced_network import SlicedNetwork

BATCH = 64  # images whose statistics are averaged


class SliceScorer:
    """Scores slices of a trained network; two functions are traced, once for all widths.

    Args:
        model: the widest network.
        images: float32 `(count, height, width, channels)`, normalized, of the training split: every slice takes its
            statistics of batch normalization from them (Yu and Huang 2019, arXiv 1903.05134, section 3.2).
        validation: batches (images, labels `(batch,)`).
        weights: of the heads' losses in their sum.
        prefix: of the names of the scores.
    """

    def __init__(
        self,
        model: GoogLeNet,
        images: np.ndarray,
        validation: tf.data.Dataset,
        weights: Mapping[str, float],
        prefix: str = "val_",
    ) -> None:
        self._slices = SlicedNetwork(model)
        self._batches = np.array_split(images, max(1, len(images) // BATCH))
        self._validation, self._weights, self._prefix = validation, weights, prefix
        batch = tf.TensorSpec((None, *model.spec.input_shape))
        widths = tf.TensorSpec((len(self._slices.convolutions),), tf.int32)
        each = {name: (tf.TensorSpec((None,)), tf.TensorSpec((None,))) for name in self._slices.normalized}
        self._measure = tf.function(self._slices.batch_statistics, (batch, widths), autograph=False)
        self._predict = tf.function(self._slices.probabilities, (batch, widths, each), autograph=False)

    def __call__(self, widths: np.ndarray) -> dict[str, float]:
        """Losses, top-1 and top-5 of all heads, by the columns of a history.

        Args:
            widths: int32 `(convolutions,)`.
        """
        total = sum_scores(self._predictions(tf.constant(widths)), len(self._weights))
        return mean_scores(total, self._weights, self._prefix)

    def statistics(self, widths: Any) -> dict[str, tuple[Any, Any]]:
        """Mean and variance of each batch normalization of a slice, averaged over batches of the images."""
        if not self._slices.normalized:
            return {}
        sums = self._measure(self._batches[0], widths)
        for images in self._batches[1:]:
            sums = tf.nest.map_structure(tf.add, sums, self._measure(images, widths))
        return tf.nest.map_structure(lambda value: value / len(self._batches), sums)

    def _predictions(self, widths: Any) -> Iterator[tuple[ByHead, np.ndarray]]:
        statistics = self.statistics(widths)
        for images, labels in self._validation:
            rows = self._predict(images, widths, statistics)
            yield {head: rows[head].numpy() for head in self._weights}, np.asarray(labels)

"""Which channels of a trained network matter: a score for each, higher for those to keep.

Scores of one convolution are compared with each other alone, so that their scale does not matter.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from inception_v1 import GoogLeNet
from inception_v1.dependencies import channels
from inception_v1.errors import UserError
from inception_v1.extras import extra
from inception_v1.fold_batchnorm import fold_batchnorm
from inception_v1.keras_patches import OptimizerInternals
from tuning.training_examples import Examples

BATCH = 16  # images at a time: all feature maps of a batch are in memory, 13 MB an image at 224 pixels
TAYLOR_BATCH = 16  # images whose gradients are averaged before they are squared

Scores = dict[str, np.ndarray]  # convolution of the body to float `(channels,)`


def magnitude(model: GoogLeNet, examples: Examples) -> Scores:
    """Sum of the absolute weights of each filter (Li et al., arXiv 1608.08710)."""
    return {name: np.abs(filters).sum(axis=1) for name, filters in _filters(model).items()}


def batch_norm(model: GoogLeNet, examples: Examples) -> Scores:
    """Absolute scale of each channel in batch normalization (network slimming, Liu et al., arXiv 1708.06519).

    Raises:
        UserError: a family without such scales.
    """
    found = {}
    for name in channels(model.spec):
        norm = next((layer for layer in model.layers if layer.name == f"{name}_bn" and layer.scale), None)
        if norm is None:
            raise UserError(
                "Expected a family with scales in batch normalization for the criterion 'batch-norm'; "
                f"Received: variant={model.spec.variant!r}."
            )
        found[name] = np.abs(keras.ops.convert_to_numpy(norm.gamma))
    return found


def geometric_median(model: GoogLeNet, examples: Examples) -> Scores:
    """Sum of the distances of each filter to the others of its layer (He et al., arXiv 1811.00250): a filter near the
    geometric median can be replaced by the others."""
    with extra("tune"):
        from scipy.spatial.distance import cdist

    return {name: cdist(filters, filters).sum(axis=1) for name, filters in _filters(model).items()}


def taylor(model: GoogLeNet, examples: Examples) -> Scores:
    """First-order change of the main loss without each channel (Molchanov et al., arXiv 1906.10771).

    The mean over batches of (dL/dg)^2, where the gate g multiplies the channel and is 1. Since ReLU is homogeneous, the
    gate's gradient is that of the filter and bias before it, batch normalization folded in, times their values.
    """
    folded = fold_batchnorm(model)
    net = keras.Model(folded.input, folded.output["main"])
    recorder = _GradientRecorder(learning_rate=0.0, name="gradients")
    net.compile(recorder, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    names = channels(model.spec)
    found = {name: np.zeros(width) for name, width in names.items()}
    variables = {variable.path: variable for variable in net.trainable_variables}
    for start in range(0, len(examples.labels), TAYLOR_BATCH):
        batch = slice(start, start + TAYLOR_BATCH)
        net.train_on_batch(examples.images[batch], examples.labels[batch])
        gradients = recorder.recorded()
        for name in names:
            parts = [
                (keras.ops.convert_to_numpy(variables[path]) * gradients[path]).reshape(-1, names[name]).sum(axis=0)
                for path in (f"{name}/kernel", f"{name}/bias")
            ]
            found[name] += np.square(sum(parts))
    return found


def rank(model: GoogLeNet, examples: Examples) -> Scores:
    """Mean rank of each channel's feature maps as matrices (HRank, Lin et al., arXiv 2002.10179)."""
    found = {name: np.zeros(width) for name, width in channels(model.spec).items()}
    for maps in _feature_maps(model, examples):
        for name, values in maps.items():
            found[name] += np.linalg.matrix_rank(values.transpose(0, 3, 1, 2)).sum(axis=0)
    return {name: total / len(examples.labels) for name, total in found.items()}


def correlation(model: GoogLeNet, examples: Examples) -> Scores:
    """Distance at which each channel joins a cluster of channels that fire together, without representing it.

    The channels of a layer are clustered by the correlation of their activations over images and positions (average
    linkage of 1 - r); the representative of a cluster is its channel of the largest variance. To keep the n best
    channels is to keep the representatives of n clusters. Channels that never change come last. The units that fire
    together are those of which Arora et al. (arXiv 1310.6343), the founding idea of Inception, build the next layer.
    """
    sums: dict[str, Any] = dict.fromkeys(channels(model.spec), 0)
    products, count = dict(sums), dict(sums)
    for maps in _feature_maps(model, examples):
        for name, values in maps.items():
            rows = values.reshape(-1, values.shape[-1]).astype("float64")
            sums[name], products[name] = sums[name] + rows.sum(axis=0), products[name] + rows.T @ rows
            count[name] += len(rows)
    return {
        name: cluster_scores(products[name] / count[name] - np.outer(sums[name], sums[name]) / count[name] ** 2)
        for name in sums
    }


def cluster_scores(covariance: np.ndarray) -> np.ndarray:
    """The scores of `correlation` for one layer, from the covariance of its channels, float `(channels, channels)`."""
    with extra("tune"):
        from sklearn.cluster import AgglomerativeClustering

    variance = np.diag(covariance)
    alive = np.flatnonzero(variance > 1e-12)
    scores = np.full(len(variance), -1.0)
    if len(alive) < 2:
        scores[alive] = np.inf
        return scores
    deviation = np.sqrt(variance[alive])
    distance = np.clip(1 - covariance[np.ix_(alive, alive)] / np.outer(deviation, deviation), 0, 2)
    tree = AgglomerativeClustering(None, metric="precomputed", linkage="average", distance_threshold=0).fit(distance)
    representatives = list(alive)
    for (one, other), height in zip(tree.children_, tree.distances_, strict=True):
        winner, loser = sorted((representatives[one], representatives[other]), key=lambda c: -variance[c])
        scores[loser] = height
        representatives.append(winner)
    scores[representatives[-1]] = np.inf
    return scores


Criterion = Callable[[GoogLeNet, Examples], Scores]
CRITERIA: dict[str, Criterion] = {
    "taylor": taylor,
    "magnitude": magnitude,
    "batch-norm": batch_norm,
    "geometric-median": geometric_median,
    "rank": rank,
    "correlation": correlation,
}


def best_channels(scores: Scores, widths: dict[str, int]) -> dict[str, np.ndarray]:
    """Indices of the best channels of each convolution in `widths`, as many as it says, ascending."""
    return {name: np.sort(np.argsort(-scores[name], kind="stable")[:width]) for name, width in widths.items()}


def _filters(model: GoogLeNet) -> dict[str, np.ndarray]:
    """Convolution to its filters, `(channels, weights of each)`."""
    kernels = {name: keras.ops.convert_to_numpy(model.get_layer(name).kernel) for name in channels(model.spec)}
    return {name: kernel.reshape(-1, kernel.shape[-1]).T for name, kernel in kernels.items()}


def _feature_maps(model: GoogLeNet, examples: Examples) -> Iterator[dict[str, np.ndarray]]:
    """Feature maps of every convolution after its ReLU, `(batch, height, width, channels)`, batch after batch."""
    net = model.features(list(channels(model.spec)))
    for start in range(0, len(examples.labels), BATCH):
        maps = net.predict_on_batch(examples.images[start : start + BATCH])
        yield {name: np.asarray(values) for name, values in maps.items()}


class _GradientRecorder(OptimizerInternals, keras.optimizers.Optimizer):
    """Keeps the gradients of the last step and leaves the variables as they are, on every backend of Keras."""

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._gradients = [self.add_variable_from_reference(variable, "gradient") for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign(self._gradients[self.variable_index(variable)], gradient)

    def recorded(self) -> dict[str, np.ndarray]:
        """Path of each variable to its gradient."""
        pairs = zip(self.tracked_variables, self._gradients, strict=True)
        return {variable.path: keras.ops.convert_to_numpy(gradient) for variable, gradient in pairs}

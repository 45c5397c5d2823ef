"""Whether attributions show what a network computes: deletion and insertion (Petsiuk et al. 2018), and what is left of
them when weights are random (Adebayo et al. 2018)."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from inception_v1 import GoogLeNet
from inception_v1.preprocessing import normalize
from interpretability.attribution import Explainer
from interpretability.overlays import resized
from training.precision import precision

FRACTIONS = 16  # points of a curve after its first


class Check(NamedTuple):
    """How one method does, as means over images.

    Attributes:
        deletion: area under the probability of the class while the pixels that speak most for it become black: the
            lower, the better.
        insertion: likewise while they appear on black: the higher, the better.
        random_classifier: rank correlation of the maps' absolute values with those of the network whose last layer is
            random; near 0 where a map depends on the class.
        random_network: likewise where all layers are random; near 0 where a map depends on what was learnt.
    """

    deletion: float
    insertion: float
    random_classifier: float
    random_network: float


def check_attributions(
    model: GoogLeNet, images: np.ndarray, methods: Sequence[str], head: str = "main", seed: int = 0
) -> dict[str, Check]:
    """Checks methods of `attribute` on images; arguments as there. The seed is that of the random weights too."""
    explainer = Explainer(model, head)
    random_ones = [Explainer(randomized(model, head, layers, seed), head) for layers in ("classifier", "all")]
    checks = {}
    for method in methods:
        found = explainer.attribute(images, method, seed=seed)
        maps = np.stack([resized(one, images.shape[1:3]) for one in found.maps])
        curves = [curve(explainer, model.spec.pixels, *row) for row in zip(images, maps, found.classes, strict=True)]
        others = [one.attribute(images, method, found.classes.tolist(), seed).maps for one in random_ones]
        correlations = [
            float(np.mean([rank_correlation(np.abs(a), np.abs(b)) for a, b in zip(found.maps, other, strict=True)]))
            for other in others
        ]
        deletion, insertion = np.mean(curves, axis=(0, 2)).tolist()
        checks[method] = Check(deletion, insertion, *correlations)
    return checks


def curve(explainer: Explainer, pixels: str, image: np.ndarray, values: np.ndarray, number: int) -> np.ndarray:
    """Probabilities of a class while the pixels of the largest values become black, and while they appear on black.

    Args:
        explainer: of the network.
        pixels: its pixel convention.
        image: `(height, width, channels)` on the 0-255 scale.
        values: `(height, width)`.
        number: of the class.

    Returns:
        float `(2, FRACTIONS + 1)`.
    """
    order = np.argsort(-values, axis=None, kind="stable")
    rank = np.empty(order.size, int)
    rank[order] = np.arange(order.size)
    limits = np.linspace(0, order.size, FRACTIONS + 1).round()
    changed = rank.reshape(1, *values.shape, 1) < limits[:, None, None, None]
    batch = np.concatenate([np.where(changed, 0, image), np.where(changed, image, 0)])
    logits = explainer.logits(np.asarray(normalize(batch, pixels), "float32")).astype("float64")
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds[:, number] / odds.sum(axis=1)).reshape(2, -1)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of all values; 0 where one of them is constant."""
    if min(np.ptp(one), np.ptp(other)) == 0:
        return 0.0
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def randomized(model: GoogLeNet, head: str, layers: str, seed: int) -> GoogLeNet:
    """A copy with new random weights in a head's classifier, or in all layers; batch normalization keeps its own.

    Args:
        model: the network.
        head: the head, for the classifier.
        layers: "classifier" or "all".
        seed: of the weights.
    """
    with precision("float32"), _seeded(seed):
        copy = GoogLeNet(**model.spec.to_dict())
    for layer in copy.layers:
        is_random = layer.name == f"{head}_logits" if layers == "classifier" else not layer.name.endswith("_bn")
        if layer.weights and not is_random:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds Python's generator, which Keras' initializers take their seeds from, and gives its state back."""
    state = random.getstate()
    random.seed(f"checks {seed}")  # not `seed` itself, from which a run may have drawn its first weights
    try:
        yield
    finally:
        random.setstate(state)

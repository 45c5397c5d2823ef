"""The few directions that an image's activations are made of: non-negative matrix factorization of a layer.

Sources: Olah et al. 2018, "The Building Blocks of Interpretability"; `lucid/misc/channel_reducer.py` and Lucid's
notebook of neuron groups.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from interpretability import objectives
from interpretability.gradients import inference
from interpretability.layer_names import own_name
from interpretability.network import check_image, check_layers, inference_features
from interpretability.numbered_rendering import NumberedRenderer
from interpretability.rendering import STEPS, default_size

FACTORS, ICON = 6, 80


class Factors(NamedTuple):
    """What `factorize` returns: `maps @ directions` is near the activations.

    Attributes:
        maps: float32 `(rows, columns, factors)`, not negative: where each factor is active.
        directions: float32 `(factors, channels)`, not negative: what it consists of.
        missing: what is left of the activations' norm after all factors, 0-1.
    """

    maps: np.ndarray
    directions: np.ndarray
    missing: float


def factorize(model: GoogLeNet, image: np.ndarray, layer: str, count: int = FACTORS, seed: int = 0) -> Factors:
    """Factorizes the activations of an image in a layer, in the order of where the factors peak from left to right.

    Args:
        model: the network.
        image: `(height, width, channels)` on the 0-255 scale.
        layer: a name that `GoogLeNet.features` takes, or Lucid's, behind a ReLU.
        count: number of factors.
        seed: of the factorization's start.

    Raises:
        UserError: an unknown layer, one without positions or with negative activations, more factors than positions or
            channels, or an image of another shape.
    """
    check_layers(model, [layer])
    check_image(model, image)
    name = own_name(layer)
    maps = inference(inference_features(model, [name]))(normalize(np.asarray(image)[None], model.spec.pixels))[name]
    if maps.ndim != 4 or maps.min() < 0:
        raise UserError(f"Expected a layer with positions, behind a ReLU; Received: {layer!r}.")
    _, rows, columns, channels = maps.shape
    most = min(rows * columns, channels)
    if not 1 <= count <= most:
        raise UserError(
            f"Expected from 1 to {most} factors of {layer!r}, which has {rows}x{columns} positions; Received: {count}."
        )
    return reduce_channels(maps[0], count, seed)


def reduce_channels(activations: np.ndarray, count: int, seed: int = 0) -> Factors:
    """Factorizes activations `(rows, columns, channels)`; as `factorize`."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    reducer = NMF(count, random_state=seed)
    with warnings.catch_warnings():  # `missing` says how good the factors are
        warnings.simplefilter("ignore", ConvergenceWarning)
        maps = reducer.fit_transform(activations.reshape(-1, activations.shape[-1]).astype("float32"))
    maps = maps.reshape(*activations.shape[:-1], count)
    order = maps.max(axis=0).argmax(axis=0).argsort(kind="stable")
    missing = reducer.reconstruction_err_ / max(float(np.linalg.norm(activations)), 1e-20)
    return Factors(maps[..., order].astype("float32"), reducer.components_[order].astype("float32"), float(missing))


def factor_icons(
    model: GoogLeNet,
    layer: str,
    factors: Factors,
    steps: int = STEPS,
    seed: int = 0,
    size: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Renders what each factor's direction responds to: float32 `(factors, size, size, channels)`, 0-1.

    Args:
        model: the network.
        layer: that of the factors.
        factors: to render.
        steps: as of `render`, like `seed`.
        size: height and width; None for the network's, at most 80.
        advance: called after each step.

    Raises:
        UserError: as `render`.
    """

    def objective(numbers: Any) -> objectives.Objective:
        return objectives.directions(layer, ops.take(factors.directions, numbers, axis=0))

    size = size or min(ICON, default_size(model))
    renderer = NumberedRenderer(model, objective, size, len(factors.directions))
    return renderer(list(range(len(factors.directions))), steps, seed, advance=advance)

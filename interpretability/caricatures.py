"""What a layer keeps of an image: its caricature, and its inversion."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from interpretability import objectives, parameterizations
from interpretability.gradients import inference
from interpretability.layer_names import own_name
from interpretability.network import check_image, check_layers, inference_features
from interpretability.objectives import Objective
from interpretability.rendering import STEPS, Renderer, Rendering
from interpretability.transforms import Transform

L1, TOTAL_VARIATION, BLUR = 0.05, 0.25, 1.0  # the weights of Lucid's notebook of regularization


def caricature(
    model: GoogLeNet,
    image: np.ndarray,
    layer: str,
    cossim_pow: float = 0,
    steps: int = STEPS,
    seed: int = 0,
    transforms: Sequence[Transform] | None = None,
    show: Callable[[float], None] | None = None,
) -> Rendering:
    """Renders an image, from noise, whose activations of a layer have the largest dot product with those of another
    image: what the layer sees in it is exaggerated.

    Args:
        model: the network.
        image: `(height, width, channels)` on the 0-255 scale.
        layer: a name that `GoogLeNet.features` takes, or Lucid's.
        cossim_pow: how strongly the activations keep to the direction of the image's (see `objectives.dot_compare`).
        steps: as of `render`, like `seed`, `transforms` and `show`.

    Raises:
        UserError: an image of another shape, or what `render` raises.

    Source: `lucid/recipes/caricature.py`.
    """
    return _render_beside(
        model, image, layer, objectives.dot_compare(layer, 1, cossim_pow), steps, seed, transforms, show
    )


def feature_inversion(
    model: GoogLeNet,
    image: np.ndarray,
    layer: str,
    regularization: float = 1,
    steps: int = STEPS,
    seed: int = 0,
    transforms: Sequence[Transform] | None = None,
    show: Callable[[float], None] | None = None,
) -> Rendering:
    """Renders an image, from noise, whose activations of a layer differ least from those of another image: what the
    layer does not keep of it is lost.

    The objective is minus the mean absolute difference of the activations, relative to their mean absolute value, and
    minus a penalty for each value of the image: 0.05 of the distance from gray (L1), 0.25 of the total variation and 1
    of the distance from itself blurred.

    Args:
        model: the network.
        image: as of `caricature`, like `layer`, `steps`, `seed`, `transforms` and `show`.
        regularization: factor of the penalty.

    Raises:
        UserError: as `caricature`, or an image that leaves the layer without any activation.

    Sources: Mahendran and Vedaldi 2015; Lucid's notebooks of style transfer (the difference) and of regularization (the
    penalties, there sums over an image).
    """
    check_layers(model, [layer])
    check_image(model, image)
    name = own_name(layer)
    inputs = normalize(np.asarray(image)[None], model.spec.pixels)
    scale = float(np.abs(inference(inference_features(model, [name]))(inputs)[name]).mean())
    if not scale > 0:
        raise UserError(f"Expected an image that activates {layer!r}; Received: one that leaves all of it at zero.")
    penalty = (
        L1 * objectives.L1(constant=0.5, batch=1)
        + TOTAL_VARIATION * objectives.total_variation(batch=1)
        + BLUR * objectives.blur_input_each_step()
    )
    weight = regularization / np.size(image)
    objective = -1 / scale * objectives.activation_difference(layer) - weight * penalty
    return _render_beside(model, image, layer, objective, steps, seed, transforms, show)


def _render_beside(
    model: GoogLeNet,
    image: np.ndarray,
    layer: str,
    objective: Objective,
    steps: int,
    seed: int,
    transforms: Sequence[Transform] | None,
    show: Callable[[float], None] | None,
) -> Rendering:
    """Renders an image that an objective compares with a given one, which goes through the same transforms."""
    check_image(model, image)
    height, width, channels = image.shape
    values = parameterizations.image(width, height, channels=1 if channels == 1 else None)
    beside = parameterizations.Beside(np.asarray(image, "float32") / 255, values)
    found = Renderer(model, objective, beside, transforms)(steps=steps, seed=seed, show=show)
    return dataclasses.replace(found, images=found.images[1:])

"""Activations at random positions of many images, with what each of them adds to the logits."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from inception_v1.spec import AUX_TAPS
from interpretability import gradients
from interpretability.layer_names import PRE_RELU
from interpretability.network import inference_features

INNER = 3  # rows or columns from which on the border, where padding is seen, is left out


class Samples(NamedTuple):
    """What `sample_activations` returns.

    Attributes:
        activations: float32 `(samples, channels)`.
        attributions: float32 `(samples, classes)`: what each activation adds to the logits, to first order.
    """

    activations: np.ndarray
    attributions: np.ndarray


class ActivationSampler:
    """Draws one activation from each image, at a random position.

    The attribution of an activation is the derivative of the logits in its direction (the sum over its channels of
    activation times gradient); of a head's logits the activation itself. Where the network has no head it is empty.

    Args:
        model: the network.
        layer: our name.

    Source: Carter et al. 2019, "Activation Atlas"; Lucid's notebook that collects activations.
    """

    def __init__(self, model: GoogLeNet, layer: str) -> None:
        self._layer, self._pixels = layer, model.spec.pixels
        head = next((name for name in AUX_TAPS if layer.startswith(name)), "main")
        self._of_logits = layer in (head, f"{head}_logits")
        self._attributed = layer.removesuffix(PRE_RELU)  # a ReLU passes on what it lets through
        self._classes = model.spec.classes if head in model.spec.heads else 0
        names = [layer, self._attributed]
        if not self._classes or self._of_logits:
            self._activations = gradients.inference(inference_features(model, names))
            return
        whole = inference_features(model, [*names, f"{head}_logits"])
        self._activations = gradients.inference(whole)
        to_logits = keras.Model([whole.input, whole.output[self._attributed]], whole.output[f"{head}_logits"])
        self._derivative = gradients.directional_derivative(to_logits)

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> Samples:
        """Samples of images on the 0-255 scale, `(batch, height, width, channels)`."""
        inputs = np.asarray(normalize(images, self._pixels), "float32")
        found = self._activations(inputs)
        maps = _as_maps(found[self._layer])
        at = (np.arange(len(images)), *_positions(generator, len(images), maps.shape[1:3]))
        if self._of_logits or not self._classes:
            return Samples(maps[at], maps[at][:, : self._classes])
        change = np.zeros_like(found[self._attributed])
        _as_maps(change)[at] = _as_maps(found[self._attributed])[at]
        attributions = self._derivative([inputs, found[self._attributed]], [np.zeros_like(inputs), change])
        return Samples(maps[at], attributions)


def sample_activations(model: GoogLeNet, layer: str, batches: Iterable[Any], most: int, seed: int = 0) -> Samples:
    """Draws one activation from each of many images.

    Args:
        model: the network.
        layer: our name.
        batches: of images on the 0-255 scale, `(batch, height, width, channels)`.
        most: number of samples that are kept; of more images a random choice (reservoir sampling).
        seed: of the positions and that choice.

    Raises:
        UserError: no image.
    """
    sampler = ActivationSampler(model, layer)
    positions, choice = (np.random.default_rng([seed, stream]) for stream in range(2))
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    seen = 0
    for images in batches:
        for sample in zip(*sampler(np.asarray(images), positions), strict=True):
            seen += 1
            if len(kept) < most:
                kept.append(sample)
            elif (place := int(choice.integers(seen))) < most:
                kept[place] = sample
    if not kept:
        raise UserError("Expected images; Received: none.")
    return Samples(*(np.stack(part) for part in zip(*kept, strict=True)))


def _as_maps(x: np.ndarray) -> np.ndarray:
    """`(batch, height, width, channels)`, a view; of dense layers `(batch, 1, 1, units)`."""
    return x[:, None, None] if x.ndim == 2 else x


def _positions(generator: np.random.Generator, count: int, size: Sequence[int]) -> np.ndarray:
    """Rows and columns, int `(2, count)`; they do not depend on how the images are batched."""
    height_and_width = np.array(size)
    border = np.where(height_and_width >= INNER, 1, 0)
    return (border + generator.random((count, 2)) * (height_and_width - 2 * border)).astype(int).T

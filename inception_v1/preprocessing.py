"""Converts pixels to each family's input, and probabilities to class names."""

import functools
import sys
from importlib import resources
from typing import Any

import numpy as np

from inception_v1.errors import UserError
from inception_v1.spec import PIXELS, VARIANTS, check_choice

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def normalize(images: Any, pixels: str) -> Any:
    """Turns pixels on the 0-255 scale into a network's input: the one function for training, evaluation and export.

    Args:
        images: `(..., channels)`, uint8 or float, RGB or gray (one channel takes the mean of the three constants);
            NumPy, TensorFlow (also inside `tf.data`), JAX or PyTorch.
        pixels: name of the convention, a key of `PIXELS`.

    Returns:
        float32 of the same shape and kind.

    Raises:
        UserError: unknown convention, or neither one nor three channels.
    """
    mean, std = constants(pixels, images.shape[-1])
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(images, torch.Tensor):
        mean, std = (torch.from_numpy(numbers).to(images.device) for numbers in (mean, std))
        return (images.to(torch.float32) - mean) / std
    if hasattr(images, "astype"):  # NumPy, JAX
        return (images.astype("float32") - mean) / std
    return _normalize_tensorflow(images, mean, std)


def constants(pixels: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of a pixel convention: float32 `(channels,)` each, on the 0-255 scale. See `normalize`."""
    check_choice("pixels", pixels, PIXELS)
    mean, std = (np.array(numbers, "float32") for numbers in PIXELS[pixels])
    if channels == 1:
        return mean.mean(keepdims=True), std.mean(keepdims=True)
    if channels != 3:
        raise UserError(f"Expected images of 1 or 3 channels for pixels={pixels!r}; Received: {channels} channels.")
    return mean, std


def _normalize_tensorflow(images: Any, mean: np.ndarray, std: np.ndarray) -> Any:
    """Whole rows at a time: broadcasting over three channels costs TensorFlow 18 times as much on a CPU."""
    tf = sys.modules["tensorflow"]  # the caller's
    images = tf.cast(images, tf.float32)
    shape = tf.shape(images)
    rows = tf.reshape(images, tf.concat([shape[:-2], shape[-2:-1] * shape[-1:]], 0))  # (..., width * channels)
    mean, std = (tf.tile(numbers, shape[-2:-1]) for numbers in (mean, std))
    return tf.ensure_shape(tf.reshape((rows - mean) / std, shape), images.shape)


def preprocess_input(images: Any, variant: str = "paper") -> Any:
    """Turns RGB images on the 0-255 scale into the input of `variant`. See `normalize`.

    Raises:
        UserError: unknown variant, or neither one nor three channels.
    """
    check_choice("variant", variant, VARIANTS)
    return normalize(images, VARIANTS[variant].pixels)


def decode_predictions(predictions: Any, variant: str = "paper", top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Names the best classes of each image.

    Args:
        predictions: probabilities `(batch, classes)`, or the dict that `GoogLeNet.predict` returns (its main head).
        variant: the family whose class order applies.
        top: how many classes an image, best first.

    Returns:
        Per image `top` tuples (WordNet id, name, score). The id is empty where there is none: CIFAR-10,
        slim's background, the dummy class of inception5h, its two maillots (its list distinguishes them only by
        position) and its last seven outputs, which no list names: their names are indices.

    Raises:
        UserError: unknown variant, `top` out of range, or another number of classes than the family's.
    """
    check_choice("variant", variant, VARIANTS)
    scores = np.asarray(predictions["main"] if isinstance(predictions, dict) else predictions)
    classes = VARIANTS[variant].classes
    if scores.ndim != 2 or scores.shape[1] != classes:
        raise UserError(
            f"Expected predictions of shape (batch, {classes}) for variant {variant!r}; Received: shape {scores.shape}."
        )
    if not 1 <= top <= classes:
        raise UserError(f"Expected 1 <= top <= {classes}; Received: top={top!r}.")
    names = class_list(VARIANTS[variant].class_list, classes)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [[(*names[i], float(row[i])) for i in order] for row, order in zip(scores, best, strict=True)]


def class_list(name: str, classes: int) -> tuple[tuple[str, str], ...]:
    """(WordNet id, class name) of each output of a published order."""
    if name == "inception5h":
        named = _listed("inception5h_classes.txt")
        return named + tuple(("", str(i)) for i in range(len(named), classes))
    if name == "cifar10":
        return tuple(("", name) for name in CIFAR10)
    background = (("", "background"),) if name == "background+imagenet" else ()
    return background + _listed("imagenet_classes.txt")


@functools.cache
def _listed(file: str) -> tuple[tuple[str, str], ...]:
    """Lines such as "n01440764 tench". ImageNet's (ILSVRC 2012) are in the order of their WordNet ids."""
    lines = resources.files("inception_v1").joinpath(file).read_text("utf-8").splitlines()
    return tuple((line[:9].strip(), line[10:]) for line in lines)

"""Resizing as TensorFlow 1 does it, as matrices: exact on every backend, and differentiable."""

from typing import Any

import numpy as np
from keras import ops


def bilinear_matrix(size: int, target: int) -> np.ndarray:
    """Matrix float32 `(target, size)` that resizes one axis linearly.

    Position i of the result is position `i * size / target` of the input, without half-pixel centers, as
    `tf.compat.v1.image.resize_bilinear` has it.
    """
    position = np.arange(target, dtype="float32") * np.float32(size / target)
    lower = np.minimum(np.floor(position).astype(int), size - 1)
    upper, fraction = np.minimum(lower + 1, size - 1), position - lower
    matrix, rows = np.zeros((target, size), "float32"), np.arange(target)
    np.add.at(matrix, (rows, lower), 1 - fraction)
    np.add.at(matrix, (rows, upper), fraction)
    return matrix


def resample(images: Any, rows: Any, columns: Any) -> Any:
    """Images `(batch, height, width, channels)` with a matrix along each axis: `rows` is `(new height, height)`."""
    return ops.einsum("xw,bywc->byxc", columns, ops.einsum("yh,bhwc->bywc", rows, images))

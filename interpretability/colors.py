"""Colors of rendered images: from a space in which natural images' channels are uncorrelated to 0-1.

Source: `lucid/optvis/param/color.py` and `unit_balls.py`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

# Square root of the covariance of ImageNet's colors, over the largest norm of a column.
_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], "float32")
CORRELATION = _ROOT / np.linalg.norm(_ROOT, axis=0).max()
MEAN = np.array([0.48, 0.46, 0.41], "float32")


def to_rgb(values: Any, decorrelate: bool = False, sigmoid: bool = True) -> Any:
    """Unbounded values as colors.

    Args:
        values: float `(..., 3)`.
        decorrelate: whether they are in the uncorrelated space.
        sigmoid: whether a sigmoid bounds them; else they are clipped, and decorrelated ones are around ImageNet's mean.

    Returns:
        float32 of the same shape, 0-1.
    """
    if decorrelate:
        values = ops.matmul(values, CORRELATION.T)
        if not sigmoid:
            values = values + MEAN
    return ops.sigmoid(values) if sigmoid else clip_to_unit(2 * values - 1) / 2 + 0.5


def clip_to_unit(x: Any) -> Any:
    """`x` clipped to -1..1, with a gradient that leads back: at the border it is dropped where a step against it would
    lead further out.

    Lucid drops the gradients that lead back instead, so that its pixels stay at the border.
    """

    @ops.custom_gradient
    def clip(x: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(upstream: Any) -> Any:
            outward = ops.logical_and(ops.abs(x) >= 1, x * upstream < 0)
            return ops.where(outward, ops.zeros_like(upstream), upstream)

        return ops.clip(x, -1.0, 1.0), gradient

    return clip(x)

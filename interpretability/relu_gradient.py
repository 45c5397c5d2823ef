"""A ReLU that lets gradients through where all would be blocked, so that images that activate nothing can change."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

REDIRECTED_STEPS = 17  # steps 0 to 16, as Lucid counts them


def redirected_relu(x: Any, redirect: Any) -> Any:
    """`relu(x)` with another gradient.

    It passes where `x >= 0`. For an image of the batch where nothing passes so, it passes everywhere but where `x < 0`
    and a step against the gradient would lower `x` further.

    Args:
        x: float `(batch, ...)`.
        redirect: float scalar; 0 leaves out the second rule.

    Source: `lucid/misc/redirected_relu_grad.py`.
    """

    @ops.custom_gradient
    def relu(x: Any, redirect: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            nothing = ops.zeros_like(upstream)
            passed = ops.where(x < 0, nothing, upstream)
            redirected = ops.where(ops.logical_and(x < 0, upstream > 0), nothing, upstream)
            strength = ops.sum(ops.square(passed), axis=tuple(range(1, len(x.shape))), keepdims=True)
            keeps = ops.logical_or(strength > 0, redirect <= 0)
            return ops.where(keeps, passed, redirected), ops.zeros_like(redirect)

        return ops.relu(x), gradient

    return relu(x, redirect)


class RedirectedReLU(keras.layers.Layer):
    """`redirected_relu` of `[x, redirect]` as a layer."""

    def call(self, inputs: list[Any]) -> Any:
        return redirected_relu(*inputs)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return tuple(input_shape[0])

"""Custom layers: registered, serializable, and written with `keras.ops` for every Keras backend."""

from typing import Any

import keras
import numpy as np
from keras import ops

from inception_v1.errors import UserError


@keras.saving.register_keras_serializable(package="inception_v1")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each activation by a power of the energy in its neighboring channels.

    `y[c] = x[c] / (k + alpha / size * sum(x[j]**2 for |j - c| <= size // 2)) ** beta`

    Alpha is divided by `size`, as in Caffe, PyTorch and ONNX; `tf.nn.local_response_normalization` does
    not divide, and takes a radius. The sum is one multiplication by a banded channels x channels matrix,
    the fastest of the forms in `benchmarks/lrn.py`. Float16 and bfloat16 input is computed in float32.

    Args:
        size: odd number of channels in the window.
        alpha: scale of the mean square.
        beta: exponent.
        k: added to the scaled sum, positive.

    Input and output: floats of shape `(..., channels)`.

    Raises:
        UserError: `size` is not a positive odd integer, or `k` is not positive.

    Source: Krizhevsky et al. 2012, section 3.3; Caffe `lrn_layer.cpp`.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise UserError(f"Expected size to be a positive odd integer; Received: size={size!r}.")
        if not k > 0:
            raise UserError(f"Expected k > 0; Received: k={k!r}.")
        self.size, self.alpha, self.beta, self.k = size, float(alpha), float(beta), float(k)
        self.supports_masking = True

    def build(self, input_shape: tuple[Any, ...]) -> None:
        channel = np.arange(input_shape[-1])
        near = np.abs(channel[:, None] - channel[None, :]) <= self.size // 2
        self._band = (near * (self.alpha / self.size)).astype("float32")  # (channels, channels)

    def call(self, inputs: Any) -> Any:
        return self._normalize(inputs, self._band)

    def call_on_first(self, inputs: Any) -> Any:
        """Normalizes feature maps that have only the first of the channels, whose number may be a tensor."""
        count = ops.shape(inputs)[-1]
        return self._normalize(inputs, ops.convert_to_tensor(self._band)[:count, :count])

    def _normalize(self, inputs: Any, band: Any) -> Any:
        x = ops.cast(inputs, "float32")
        energy = self.k + ops.matmul(ops.square(x), band)
        if self.beta == 0.75:  # two square roots cost less than a power
            root = ops.sqrt(energy)
            y = x / (root * ops.sqrt(root))
        else:
            y = x / ops.power(energy, self.beta)
        return ops.cast(y, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="inception_v1")
class AdaptiveAveragePooling2D(keras.layers.Layer):
    """Average pooling to a square grid, whatever the size of the feature maps, smaller ones included.

    Window `i` of `grid` covers rows `floor(i * n / grid)` to `ceil((i + 1) * n / grid)` of `n`, as in
    PyTorch. Unlike `keras.layers.AdaptiveAveragePooling2D` it also runs on feature maps of unknown height and width.

    Args:
        grid: rows and columns of the output.

    Input: floats of shape `(batch, height, width, channels)`. Output: `(batch, grid, grid, channels)`.
    """

    def __init__(self, grid: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid = grid

    def call(self, inputs: Any) -> Any:
        _, height, width, channels = ops.shape(inputs)
        rows, columns = self._windows(height), self._windows(width)
        windows = ops.reshape(ops.einsum("gh,kw->gkhw", rows, columns), (1, self.grid**2, height * width))
        # The same windows for each image, from the images themselves: JAX divides them among devices in the same way.
        windows = ops.cast(windows, inputs.dtype) + ops.zeros_like(inputs[:, :1, :1, 0])
        # One matmul over all pixels: on a CPU a third of the time of one over rows and one over columns.
        pooled = ops.matmul(windows, ops.reshape(inputs, (-1, height * width, channels)))
        return ops.reshape(pooled, (-1, self.grid, self.grid, channels))

    def _windows(self, size: Any) -> Any:
        """(grid, size): row i holds the weights of window i."""
        i, n = ops.arange(self.grid, dtype="int32")[:, None], ops.arange(size, dtype="int32")[None, :]
        start = ops.floor_divide(i * size, self.grid)
        end = -ops.floor_divide(-(i + 1) * size, self.grid)
        inside = ops.cast(ops.logical_and(n >= start, n < end), "float32")
        return inside / ops.sum(inside, axis=1, keepdims=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.grid, self.grid, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid": self.grid}

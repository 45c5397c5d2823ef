"""Custom layers: registered, serializable, and written with `keras.ops` for every Keras backend."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="inception_v1")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each activation by a power of the energy in its neighbouring channels.

    `y[c] = x[c] / (k + alpha / size * sum(x[j]**2 for |j - c| <= size // 2)) ** beta`

    Alpha is divided by `size`, as in Caffe, PyTorch and ONNX; `tf.nn.local_response_normalization` does
    not divide, and takes a radius. The sum runs as one product with a banded channels x channels matrix,
    the fastest of the forms in `benchmarks/lrn.py`. Float16 and bfloat16 input is computed in float32.

    Args:
        size: odd number of channels in the window.
        alpha: scale of the mean square.
        beta: exponent.
        k: added to the scaled sum, positive.

    Input and output: floats of shape `(..., channels)`.

    Raises:
        ValueError: `size` is not a positive odd integer, or `k` is not positive.

    Source: Krizhevsky et al. 2012, section 3.3; Caffe `lrn_layer.cpp`.
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=1.0, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueError(f"Expected size to be a positive odd integer; Received: size={size!r}.")
        if not k > 0:
            raise ValueError(f"Expected k > 0; Received: k={k!r}.")
        self.size, self.alpha, self.beta, self.k = size, float(alpha), float(beta), float(k)
        self.supports_masking = True

    def build(self, input_shape):
        channel = np.arange(input_shape[-1])
        near = np.abs(channel[:, None] - channel[None, :]) <= self.size // 2
        self._band = (near * (self.alpha / self.size)).astype("float32")  # (channels, channels)

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        energy = self.k + ops.matmul(ops.square(x), self._band)
        if self.beta == 0.75:  # two square roots cost less than a power
            root = ops.sqrt(energy)
            y = x / (root * ops.sqrt(root))
        else:
            y = x / ops.power(energy, self.beta)
        return ops.cast(y, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="inception_v1")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` as one operation on TensorFlow, which Keras spells out in many.

    Same arguments, weights and results. The one operation reads half-precision maps as they are, where Keras casts
    them to float32 and back, and at inference TensorFlow joins it with the convolution before and the ReLU after it.
    On other backends, with `synchronized` or `renorm`, and for anything but float maps
    `(batch, height, width, channels)`, Keras' own code runs.
    """

    def call(self, inputs, training=None, mask=None):
        plain = not (self.synchronized or self.renorm) and mask is None
        maps = len(inputs.shape) == 4 and self.axis in (-1, 3) and self.compute_dtype != "float64"
        if keras.backend.backend() != "tensorflow" or not (plain and maps):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        def normalized(maps, by_batch, mean=(), variance=()):
            return tf.raw_ops.FusedBatchNormV3(
                x=maps,
                scale=scale,
                offset=offset,
                mean=mean,
                variance=variance,
                epsilon=self.epsilon,
                is_training=by_batch,
            )

        scale = tf.convert_to_tensor(self.gamma) if self.scale else ops.ones_like(self.moving_mean)
        offset = tf.convert_to_tensor(self.beta) if self.center else ops.zeros_like(self.moving_mean)
        if not (training and self.trainable):
            running = (ops.convert_to_tensor(x) for x in (self.moving_mean, self.moving_variance))
            return normalized(inputs, False, *running)[0]
        y, mean, variance, *_ = normalized(inputs, True)
        count = ops.cast(ops.prod(ops.shape(inputs)[:3]), variance.dtype)
        variance = variance * (count - 1) / count  # the operation's is unbiased, Keras' running one is not
        for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + batch * (1 - self.momentum))
        return _with_recipe(y, lambda maps: normalized(maps, False, mean, variance)[0], inputs)


# What the backward pass reads stays in memory until then. Nearly half of that are outputs of ReLU, of the pools in the
# blocks and of padding, which can be had again from maps that stay anyway. Their layers hang the way to do so on the
# tensor, as Keras hangs its masks there, and the gradients of the layers that read it go that way. In graphs of
# TensorFlow on a CPU only, where it was measured: `python -m benchmarks train`.


def _with_recipe(maps, recipe: Callable[[Any], Any], source):
    """Maps that say how their values can be had again: what the recipe makes of the source."""
    maps._recipe = recipe, source
    return maps


def _again(maps, upstream):
    """The values of maps for a gradient: had again when the upstream gradient is there, or kept if none says how."""
    import tensorflow as tf

    if not hasattr(maps, "_recipe"):
        return maps
    if not hasattr(maps, "_again") or maps._again.graph is not upstream.graph:
        recipe, source = maps._recipe
        with tf.control_dependencies([upstream]):  # else it would run at once
            maps._again = recipe(_again(source, upstream))
    return maps._again


def _spares_memory(training) -> bool:
    if not training or keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly() and not tf.config.list_logical_devices("GPU")


@keras.saving.register_keras_serializable(package="inception_v1")
class ReLU(keras.layers.ReLU):
    """`keras.layers.ReLU` that does not keep its output for the backward pass where that can be had again.

    Same arguments and results.
    """

    def call(self, inputs, training=None):
        plain = self.max_value is None and not self.negative_slope and not self.threshold
        if not (plain and hasattr(inputs, "_recipe") and _spares_memory(training)):
            return super().call(inputs)
        import tensorflow as tf

        @tf.custom_gradient
        def rectified(maps):
            def gradient(upstream):
                return tf.raw_ops.ReluGrad(gradients=upstream, features=_again(y, upstream))

            return tf.nn.relu(maps), gradient

        y = _with_recipe(rectified(inputs), tf.nn.relu, inputs)
        return y


@keras.saving.register_keras_serializable(package="inception_v1")
class MaxPooling2D(keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` that does not keep its input for the backward pass where that can be had again.

    Same arguments and results. With strides of 1 its output, as large as its input, can be had again in its turn.
    """

    def call(self, inputs, training=None):
        if not (self.data_format == "channels_last" and _spares_memory(training)):
            return super().call(inputs)
        import tensorflow as tf

        windows = {"ksize": (1, *self.pool_size, 1), "strides": (1, *self.strides, 1), "padding": self.padding.upper()}
        again = self.strides == (1, 1)

        def pool(maps):
            return tf.raw_ops.MaxPool(input=maps, **windows)

        @tf.custom_gradient
        def pooled(maps):
            def gradient(upstream):
                before = _again(inputs, upstream)
                after = _again(y, upstream) if again else kept
                return tf.raw_ops.MaxPoolGrad(orig_input=before, orig_output=after, grad=upstream, **windows)

            kept = pool(maps)
            return kept, gradient

        y = pooled(inputs)
        return _with_recipe(y, pool, inputs) if again else y


@keras.saving.register_keras_serializable(package="inception_v1")
class ZeroPadding2D(keras.layers.ZeroPadding2D):
    """`keras.layers.ZeroPadding2D` whose output is not kept for the backward pass but can be had again.

    Same arguments and results.
    """

    def call(self, inputs, training=None):
        y = super().call(inputs)
        return _with_recipe(y, super().call, inputs) if _spares_memory(training) else y


@keras.saving.register_keras_serializable(package="inception_v1")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` whose backward pass takes less time and memory on a CPU.

    Same arguments, weights and results. In training on TensorFlow without a GPU the gradient of a 1x1 kernel is one
    matrix product, up to three times as fast there as the convolution that TensorFlow uses, and maps that can be had
    again are not kept. Elsewhere, and with dilation, groups or channels first, Keras' own code runs.
    """

    def call(self, inputs, training=None):
        plain = self.groups == 1 and self.dilation_rate == (1, 1) and self.data_format == "channels_last"
        pointwise = self.kernel_size == self.strides == (1, 1)
        if not (plain and (pointwise or hasattr(inputs, "_recipe")) and _spares_memory(training)):
            return super().call(inputs)
        import tensorflow as tf

        places = {"strides": (1, *self.strides, 1), "padding": self.padding.upper()}

        @tf.custom_gradient
        def convolved(maps, kernel):
            def gradient(errors):
                read = _again(inputs, errors)
                if pointwise:
                    pixels, by_pixel = (tf.reshape(x, (-1, x.shape[-1])) for x in (read, errors))
                    of_kernel = tf.reshape(tf.matmul(pixels, by_pixel, transpose_a=True), kernel.shape)
                else:
                    of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                        input=read, filter_sizes=kernel.shape, out_backprop=errors, **places
                    )
                of_maps = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=shape, filter=kernel, out_backprop=errors, **places
                )
                if self.strides == (1, 1):  # a strided one reads the picture, whose gradient nobody wants
                    with tf.control_dependencies([of_maps]):  # an update of the kernel while it is read would copy it
                        of_kernel = tf.identity(of_kernel)
                return of_maps, of_kernel

            shape = tf.shape(maps)
            return tf.raw_ops.Conv2D(input=maps, filter=kernel, **places), gradient

        y = convolved(inputs, tf.convert_to_tensor(self.kernel))
        return self.activation(y + self.bias if self.use_bias else y)


@keras.saving.register_keras_serializable(package="inception_v1")
class AdaptiveAveragePooling2D(keras.layers.Layer):
    """Average pooling to a square grid, whatever the size of the map, smaller maps included.

    Window `i` of `grid` covers rows `floor(i * n / grid)` to `ceil((i + 1) * n / grid)` of `n`, as in
    PyTorch. Unlike `keras.layers.AdaptiveAveragePooling2D` it also runs on maps of unknown height and width.

    Args:
        grid: rows and columns of the output.

    Input: floats of shape `(batch, height, width, channels)`. Output: `(batch, grid, grid, channels)`.
    """

    def __init__(self, grid, **kwargs):
        super().__init__(**kwargs)
        self.grid = grid

    def call(self, inputs):
        batch, height, width, channels = ops.shape(inputs)
        rows, columns = self._windows(height), self._windows(width)
        windows = ops.reshape(ops.einsum("gh,kw->gkhw", rows, columns), (1, self.grid**2, height * width))
        windows = ops.broadcast_to(ops.cast(windows, inputs.dtype), (batch, self.grid**2, height * width))
        # One product over all pixels: on a CPU a third of the time of one over rows and one over columns.
        pooled = ops.matmul(windows, ops.reshape(inputs, (-1, height * width, channels)))
        return ops.reshape(pooled, (-1, self.grid, self.grid, channels))

    def _windows(self, size):
        """(grid, size): row i holds the weights of window i."""
        i, n = ops.arange(self.grid, dtype="int32")[:, None], ops.arange(size, dtype="int32")[None, :]
        start = ops.floor_divide(i * size, self.grid)
        end = -ops.floor_divide(-(i + 1) * size, self.grid)
        inside = ops.cast(ops.logical_and(n >= start, n < end), "float32")
        return inside / ops.sum(inside, axis=1, keepdims=True)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.grid, self.grid, input_shape[3])

    def get_config(self):
        return {**super().get_config(), "grid": self.grid}

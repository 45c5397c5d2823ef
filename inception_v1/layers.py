"""Custom layers: registered, serializable, and written with `keras.ops` for every Keras backend."""

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

        training = bool(training and self.trainable)
        ones, zeros = ops.ones_like(self.moving_mean), ops.zeros_like(self.moving_mean)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.convert_to_tensor(self.gamma) if self.scale else ones,
            offset=ops.convert_to_tensor(self.beta) if self.center else zeros,
            mean=[] if training else ops.convert_to_tensor(self.moving_mean),
            variance=[] if training else ops.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            count = ops.cast(ops.prod(ops.shape(inputs)[:3]), variance.dtype)
            variance = variance * (count - 1) / count  # the operation's is unbiased, Keras' running one is not
            for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                running.assign(running * self.momentum + batch * (1 - self.momentum))
        return y


@keras.saving.register_keras_serializable(package="inception_v1")
class PointwiseConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a 1x1 kernel, whose gradient TensorFlow gets faster on a CPU.

    Same arguments, weights and results. In training on TensorFlow without a GPU the kernel's gradient is one matrix
    product, up to three times as fast there as the convolution that TensorFlow uses. Elsewhere Keras' own code runs.

    Args:
        filters: number of output channels.
        **kwargs: as in Keras, of a convolution without strides, dilation or groups and with its channels last.
    """

    def __init__(self, filters, kernel_size=1, **kwargs):
        super().__init__(filters, kernel_size, **kwargs)
        plain = {"kernel_size": (1, 1), "strides": (1, 1), "dilation_rate": (1, 1), "groups": 1}
        plain |= {"data_format": "channels_last"}
        for name, value in plain.items():
            if getattr(self, name) != value:
                raise ValueError(f"Expected {name}={value}; Received: {name}={getattr(self, name)}.")

    def call(self, inputs, training=None):
        if training and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            if not tf.config.list_logical_devices("GPU"):
                y = _pointwise(inputs, tf.convert_to_tensor(self.kernel))
                return self.activation(y + self.bias if self.use_bias else y)
        return super().call(inputs)


def _pointwise(maps, kernel):
    """A 1x1 convolution by TensorFlow."""
    import tensorflow as tf

    @tf.custom_gradient
    def convolved(maps, kernel):
        def gradient(upstream):
            pixels, errors = (tf.reshape(x, (-1, x.shape[-1])) for x in (maps, upstream))
            of_maps = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(maps), filter=kernel, out_backprop=upstream, strides=[1] * 4, padding="VALID"
            )
            return of_maps, tf.reshape(tf.matmul(pixels, errors, transpose_a=True), kernel.shape)

        return tf.nn.conv2d(maps, kernel, 1, "VALID"), gradient

    return convolved(maps, kernel)


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

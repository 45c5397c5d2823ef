"""Keras' own layers as TensorFlow runs them faster; on every other backend they are Keras' own.

Same arguments, weights and results as the layers of `keras.layers` with these names. What is faster:

- Operator fusion: batch normalization is one operation.
- Kernel gradients of 1x1 convolutions are one matrix multiplication.
- Rematerialization (Chen et al. 2016, arXiv 1604.06174): what the backward pass reads stays in memory until then.
  Nearly half of that are outputs of ReLU, of the pools inside the blocks and of padding, which are cheap to recompute
  from tensors that stay anyway. Such a layer hangs a recompute function on its output, as Keras hangs its masks, and
  the gradients of the layers that read the output call it. `keras.remat` around each Inception block computes every
  convolution in it twice: at batch 32 a step takes 0.74 of the memory and 1.19 times the time of Keras' layers, with
  this file 0.64 and 0.99 (2 cores, `python -m benchmarks rematerialization`).

The last two apply to training in graphs of TensorFlow on a CPU alone, where they were measured
(`python -m benchmarks train`).
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@keras.saving.register_keras_serializable(package="inception_v1")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` as one operation on TensorFlow, which Keras spells out in many.

    The one operation reads half-precision feature maps as they are, where Keras casts them to float32 and back, and at
    inference TensorFlow fuses it with the convolution before and the ReLU after it. With `synchronized` or `renorm`,
    and for anything but floats of shape `(batch, height, width, channels)`, Keras' own code runs.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        plain = not (self.synchronized or self.renorm) and mask is None
        feature_maps = len(inputs.shape) == 4 and self.axis in (-1, 3) and self.compute_dtype != "float64"
        if keras.backend.backend() != "tensorflow" or not (plain and feature_maps):
            return super().call(inputs, training=training, mask=mask)

        def normalize(x: Any, is_training: bool, mean: Any = (), variance: Any = ()) -> Any:
            return tf.raw_ops.FusedBatchNormV3(
                x=x,
                scale=scale,
                offset=offset,
                mean=mean,
                variance=variance,
                epsilon=self.epsilon,
                is_training=is_training,
            )

        scale = tf.convert_to_tensor(self.gamma) if self.scale else ops.ones_like(self.moving_mean)
        offset = tf.convert_to_tensor(self.beta) if self.center else ops.zeros_like(self.moving_mean)
        if not (training and self.trainable):
            running = (ops.convert_to_tensor(x) for x in (self.moving_mean, self.moving_variance))
            return normalize(inputs, False, *running)[0]
        y, mean, variance, *_ = normalize(inputs, True)
        count = inputs.shape[:3].num_elements() or tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
        variance *= (count - 1) / count  # the operation's is unbiased, that of Keras and of the recomputation is not
        for variable, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running = tf.convert_to_tensor(variable)
            variable.assign(running * self.momentum + batch * (1 - self.momentum))
        return _with_recompute(y, lambda x: normalize(x, False, mean, variance)[0], inputs)


@keras.saving.register_keras_serializable(package="inception_v1")
class ReLU(keras.layers.ReLU):
    """`keras.layers.ReLU` that recomputes its output for the backward pass where its input can be recomputed too."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        plain = self.max_value is None and not self.negative_slope and not self.threshold
        if not (plain and hasattr(inputs, "_recompute") and _saves_activation_memory(training)):
            return super().call(inputs)

        @tf.custom_gradient
        def rectify(x: Any) -> tuple[Any, Callable[[Any], Any]]:
            def gradient(upstream: Any) -> Any:
                return tf.raw_ops.ReluGrad(gradients=upstream, features=_rematerialized(y, upstream))

            return tf.nn.relu(x), gradient

        y = _with_recompute(rectify(inputs), tf.nn.relu, inputs)
        return y


@keras.saving.register_keras_serializable(package="inception_v1")
class MaxPooling2D(keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` that recomputes its input for the backward pass where that can be recomputed.

    With strides of 1 its output, as large as its input, is recomputed too.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not (self.data_format == "channels_last" and _saves_activation_memory(training)):
            return super().call(inputs)
        windows = {"ksize": (1, *self.pool_size, 1), "strides": (1, *self.strides, 1), "padding": self.padding.upper()}
        recomputes_output = self.strides == (1, 1)

        def pool(x: Any) -> Any:
            return tf.raw_ops.MaxPool(input=x, **windows)

        @tf.custom_gradient
        def pool_with_gradient(x: Any) -> tuple[Any, Callable[[Any], Any]]:
            def gradient(upstream: Any) -> Any:
                before = _rematerialized(inputs, upstream)
                after = _rematerialized(y, upstream) if recomputes_output else kept
                return tf.raw_ops.MaxPoolGrad(orig_input=before, orig_output=after, grad=upstream, **windows)

            kept = pool(x)
            return kept, gradient

        y = pool_with_gradient(inputs)
        return _with_recompute(y, pool, inputs) if recomputes_output else y


@keras.saving.register_keras_serializable(package="inception_v1")
class ZeroPadding2D(keras.layers.ZeroPadding2D):
    """`keras.layers.ZeroPadding2D` whose output is recomputed for the backward pass."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        y = super().call(inputs)
        return _with_recompute(y, super().call, inputs) if _saves_activation_memory(training) else y


@keras.saving.register_keras_serializable(package="inception_v1")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` whose backward pass takes less time and memory on a CPU.

    The gradient of a 1x1 kernel is one matrix multiplication, up to three times as fast there as the convolution that
    TensorFlow uses, and inputs that can be recomputed are not kept. With dilation, groups or channels first Keras' own
    code runs.

    Args:
        *args: as in Keras.
        input_gradient: whether training usually needs the gradient of the input. False for the layer that reads the
            images: theirs is then computed only where something asks for it.
        **kwargs: as in Keras.
    """

    def __init__(self, *args: Any, input_gradient: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.input_gradient = input_gradient

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        plain = self.groups == 1 and self.dilation_rate == (1, 1) and self.data_format == "channels_last"
        pointwise = self.kernel_size == self.strides == (1, 1)
        faster = plain and (pointwise or hasattr(inputs, "_recompute"))
        if not (faster and _saves_activation_memory(training)):
            return super().call(inputs)
        geometry = {"strides": (1, *self.strides, 1), "padding": self.padding.upper()}

        def kernel_gradient(x: Any, kernel: Any, upstream: Any) -> Any:
            if pointwise:
                pixels, errors = (tf.reshape(t, (-1, t.shape[-1])) for t in (x, upstream))
                return tf.reshape(tf.matmul(pixels, errors, transpose_a=True), kernel.shape)
            return tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=kernel.shape, out_backprop=upstream, **geometry
            )

        @tf.custom_gradient
        def convolve(x: Any, kernel: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
            def gradient(upstream: Any) -> tuple[Any, Any]:
                of_kernel = kernel_gradient(_rematerialized(inputs, upstream), kernel, upstream)
                of_input = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=shape, filter=kernel, out_backprop=upstream, **geometry
                )
                if self.input_gradient:
                    with tf.control_dependencies([of_input]):  # an update of the kernel while it is read would copy it
                        of_kernel = tf.identity(of_kernel)
                return of_input, of_kernel

            shape = tf.shape(x)
            return tf.raw_ops.Conv2D(input=x, filter=kernel, **geometry), gradient

        y = convolve(inputs, tf.convert_to_tensor(self.kernel))
        return self.activation(y + self.bias if self.use_bias else y)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "input_gradient": self.input_gradient}


def _with_recompute(y: Any, function: Callable[[Any], Any], source: Any) -> Any:
    """Returns `y`, marked as what `function` makes of `source`."""
    y._recompute = function, source
    return y


def _rematerialized(y: Any, upstream: Any) -> Any:
    """The values of `y` for a gradient: recomputed once `upstream` is there, or kept where there is no recompute
    function."""
    if not hasattr(y, "_recompute"):
        return y
    if not hasattr(y, "_recomputed") or y._recomputed.graph is not upstream.graph:
        function, source = y._recompute
        with tf.control_dependencies([upstream]):  # else it would run at once
            y._recomputed = function(_rematerialized(source, upstream))
    return y._recomputed


def _saves_activation_memory(training: bool | None) -> bool:
    """Whether a call trains in a graph of TensorFlow on a CPU."""
    if not training or keras.backend.backend() != "tensorflow":
        return False
    return not tf.executing_eagerly() and not tf.config.list_logical_devices("GPU")

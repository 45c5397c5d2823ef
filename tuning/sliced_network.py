"""Networks that share the weights of one: each has the first channels of every convolution of it.

A slice is the network that `inception_v1.slimming.remove_channels` makes of the widest one where the first channels
stay. Here it is not built: the kernels of the widest network are sliced while it runs, by widths that are a tensor, so
that one traced function serves all widths, and a narrow network costs less than a wide one.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from inception_v1 import GoogLeNet
from inception_v1.dependencies import channels, sources
from inception_v1.spec import AUX_TAPS, BatchNorm, Conv, Inception, LayerSpec, ResponseNorm

Statistics = Mapping[str, tuple[Any, Any]]  # convolution to the mean and variance of its batch normalization
ByHead = dict[str, Any]


class SlicedNetwork:
    """Runs a network with the first channels of its convolutions.

    Args:
        model: the widest network, on TensorFlow. Its variables are read whenever a slice runs.

    Attributes:
        convolutions: of the body, in the order in which `widths` has them.
    """

    def __init__(self, model: GoogLeNet) -> None:
        self._model, self._spec = model, model.spec
        self._layers = {layer.name: layer for layer in model.layers}
        self._reads, self._own = sources(model.spec), channels(model.spec)
        self.convolutions = tuple(self._own)
        self._place = {name: place for place, name in enumerate(self.convolutions)}

    @property
    def normalized(self) -> tuple[str, ...]:
        """Convolutions with batch normalization, those of the auxiliary heads last; none in other families."""
        heads = tuple(f"{head}_conv" for head in AUX_TAPS) if self._spec.has_aux else ()
        return (*self.convolutions, *heads) if isinstance(self._spec.norm, BatchNorm) else ()

    def __call__(self, images: Any, widths: Any, statistics: Statistics | None = None) -> tuple[ByHead, Statistics]:
        """The logits of one slice, without dropout.

        Args:
            images: float `(batch, height, width, channels)`, normalized as the network takes them.
            widths: int32 `(convolutions,)`, from 1 to the channels of the widest network.
            statistics: of batch normalization, each array with the channels of the slice; None for those of the batch.

        Returns:
            Logits by head, float32 `(batch, classes)`, and the statistics of batch normalization.
        """
        run = _Run(self._layers, self._reads, self._own, widths, self._place, statistics)
        x, taps = tf.cast(images, self._layers[self.convolutions[0]].compute_dtype), {}
        for layer in self._spec.trunk():
            x = taps[layer.name] = run.apply(layer, x)
        logits = {"main": run.dense("main_logits", self._layers["main_pool"](x))}
        for head, block in AUX_TAPS.items() if self._spec.has_aux else ():
            y = run.conv(Conv(f"{head}_conv", 0, 1), self._layers[f"{head}_pool"](taps[f"inception_{block}"]))
            logits[head] = run.dense(f"{head}_logits", self._layers[f"{head}_fc"](self._layers[f"{head}_flatten"](y)))
        return logits, run.statistics

    def batch_statistics(self, images: Any, widths: Any) -> Statistics:
        """The statistics of batch normalization in a slice, of a batch of images; see `__call__`."""
        return self(images, widths)[1]

    def probabilities(self, images: Any, widths: Any, statistics: Statistics) -> ByHead:
        """The probabilities of a slice by head, with known statistics; see `__call__`."""
        logits, _ = self(images, widths, statistics)
        return {head: tf.nn.softmax(values) for head, values in logits.items()}


class _Run:
    """One pass of a slice, layer by layer; collects the statistics of batch normalization."""

    def __init__(
        self,
        layers: Mapping[str, Any],
        reads: Mapping[str, tuple[str, ...]],
        own: Mapping[str, int],
        widths: Any,
        place: Mapping[str, int],
        known: Statistics | None,
    ) -> None:
        self._layers, self._reads, self._own, self._known = layers, reads, own, known
        self._widths = {name: widths[index] for name, index in place.items()}
        self.statistics: dict[str, tuple[Any, Any]] = {}

    def apply(self, layer: LayerSpec, x: Any) -> Any:
        """Feature maps after a row of the spec."""
        if isinstance(layer, Inception):
            ends = []
            for branch in layer.branches:
                end = x
                for inner in branch:
                    end = self.apply(inner, end)
                ends.append(end)
            return tf.concat(ends, -1)
        if isinstance(layer, Conv):
            return self.conv(layer, x)
        if isinstance(layer, ResponseNorm):
            return self._layers[layer.name].call_on_first(x)
        return self._layers[layer.name](self._padded(layer.name, x))

    def conv(self, layer: Conv, x: Any) -> Any:
        """Feature maps after a convolution, its normalization and its ReLU."""
        own, filters = self._layers[layer.name], self._widths.get(layer.name)
        kernel = self._rows(layer.name, own.kernel, 2)[..., :filters]
        x, kernel = self._padded(layer.name, x), tf.cast(kernel, own.compute_dtype)
        if layer.kernel == layer.stride == 1:  # as a matrix multiplication, whose gradients are faster on a CPU
            shape = tf.shape(x)
            flat = tf.matmul(tf.reshape(x, (-1, shape[3])), kernel[0, 0])
            x = tf.reshape(flat, (shape[0], *x.shape[1:3], flat.shape[1] or tf.shape(flat)[1]))
        else:
            x = tf.nn.conv2d(x, kernel, layer.stride, own.padding.upper())
        if own.use_bias:
            x += tf.cast(own.bias[:filters], x.dtype)
        if (norm := self._layers.get(f"{layer.name}_bn")) is not None:
            x = self._normalize(layer.name, norm, x, filters)
        return tf.nn.relu(x)

    def dense(self, name: str, x: Any) -> Any:
        """Logits of a head."""
        layer = self._layers[name]
        return tf.matmul(tf.cast(x, "float32"), self._rows(name, layer.kernel, 0)) + layer.bias

    def _rows(self, name: str, kernel: Any, axis: int) -> Any:
        """The kernel with the rows that read channels of the slice."""
        kernel, offset, rows = tf.convert_to_tensor(kernel), 0, []
        before = (slice(None),) * axis
        for source in self._reads.get(name, ()):
            rows.append(kernel[(*before, slice(offset, offset + self._widths[source]))])
            offset += self._own[source]
        return tf.concat(rows, axis) if len(rows) > 1 else rows[0] if rows else kernel

    def _padded(self, name: str, x: Any) -> Any:
        """Feature maps behind the layer that pads what a layer reads, where there is one."""
        pad = self._layers.get(f"{name}_pad")
        return x if pad is None else pad(x)

    def _normalize(self, name: str, layer: Any, x: Any, filters: Any) -> Any:
        count = tf.shape(x)[3]
        scale = layer.gamma[:filters] if layer.scale else tf.ones(count)
        training = self._known is None
        mean, variance = self._known[name] if self._known else ((), ())
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=layer.beta[:filters],
            mean=mean,
            variance=variance,
            epsilon=layer.epsilon,
            is_training=training,
        )
        if training:
            positions = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), "float32")
            variance *= (positions - 1) / positions  # the operation's is unbiased, a running one is not
        self.statistics[name] = mean, variance
        return y

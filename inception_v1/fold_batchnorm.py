"""The network as it is shipped: one convolution with a bias where training has a convolution and a batch
normalization."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from inception_v1.errors import UserError
from inception_v1.layers import LocalResponseNormalization
from inception_v1.model import GoogLeNet


def fold_batchnorm(model: GoogLeNet, aux: bool = False) -> keras.Model:
    """A copy of a network for inference alone, in float32.

    Batch normalization is folded into the convolutions before it, dropout is removed, and the band of a local response
    normalization is a 1x1 convolution. Layers keep their names.

    Args:
        model: the network; it stays as it is.
        aux: whether to keep the auxiliary heads.

    Returns:
        A plain `keras.Model` from image to {head: logits float32 `(batch, classes)`}.

    Raises:
        UserError: no main head, or `aux` of a network without auxiliary heads.
    """
    if not model.spec.include_top:
        raise UserError("Expected a model with a main head; Received: one built with include_top=False.")
    if aux and not model.spec.has_aux:
        raise UserError("Expected a model with auxiliary heads to keep; Received: one without.")
    heads = model.spec.heads if aux else ("main",)
    return inference_copy(keras.Model(model.input, {head: model.get_layer(f"{head}_logits").output for head in heads}))


def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """What a layer of a network becomes in one for inference alone: nothing where it is folded away."""
    if isinstance(layer, layers.BatchNormalization | layers.Dropout):
        return args[0]
    if not isinstance(layer, keras.layers.Layer):  # an operation
        return layer(*args, **kwargs)
    return layer(*args)  # without `training`


def inference_copy(
    trained: keras.Model, call: Callable[..., Any] = call_layer, inputs: Sequence[Any] | None = None
) -> keras.Model:
    """A copy for inference of any model of a `GoogLeNet`'s layers: that of `fold_batchnorm`.

    Args:
        trained: the model.
        call: called with each layer's copy and its inputs; returns its outputs.
        inputs: those of the copy; None for new ones like the model's.
    """
    net = keras.models.clone_model(trained, inputs, clone_function=_inference_layer, call_function=call)
    own = {layer.name: layer for layer in trained.layers}
    for layer in net.layers:
        if layer.weights:
            layer.set_weights(_weights(own, layer.name))
    return net


class ConvolvedNormalization(LocalResponseNormalization):
    """Its parent with the band as a 1x1 convolution and one reciprocal: operations that converters translate to any
    order of the channels, unlike a matrix multiplication and a division."""

    def call(self, inputs: Any) -> Any:
        energy = self.k + ops.conv(ops.square(inputs), self._band[None, None], data_format="channels_last")
        root = ops.sqrt(energy)
        return inputs * ops.reciprocal(root * ops.sqrt(root) if self.beta == 0.75 else ops.power(energy, self.beta))


def _inference_layer(layer: Any) -> Any:
    if not isinstance(layer, keras.layers.Layer):
        return layer
    config = layer.get_config() | {"dtype": "float32"}
    if isinstance(layer, layers.Conv2D):
        config.pop("input_gradient")  # of training alone
        return layers.Conv2D.from_config(config | {"use_bias": True})
    if isinstance(layer, LocalResponseNormalization):
        return ConvolvedNormalization.from_config(config)
    return type(layer).from_config(config)


def _weights(own: Mapping[str, keras.layers.Layer], name: str) -> list[np.ndarray]:
    """[kernel, bias] of a convolution with the batch normalization after it, computed in float64; others' unchanged."""
    norm = own.get(f"{name}_bn")
    if norm is None:
        return own[name].get_weights()
    kernel, bias = own[name].get_weights() if own[name].use_bias else (*own[name].get_weights(), 0.0)
    mean, variance = (np.asarray(v, "float64") for v in norm.get_weights()[-2:])
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma)
    shift = (np.asarray(bias) - mean) * scale + (np.asarray(norm.beta) if norm.center else 0)
    return [kernel * scale, shift]

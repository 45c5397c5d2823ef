"""A network with a gate on every branch of its Inception blocks: a number that the branch's output is multiplied by."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from inception_v1 import GoogLeNet
from inception_v1.fold_batchnorm import call_layer, inference_copy
from inception_v1.spec import BRANCHES, Inception
from interpretability.network import any_size


class GatedNetwork(NamedTuple):
    """What `gated` returns.

    Attributes:
        model: a `keras.Model` from [normalized images, gates float `(batch, blocks, 4)`] to float `(batch, classes)`,
            for inference. With gates of one it computes the network's logits.
        blocks: our names of the blocks, in order.
    """

    model: keras.Model
    blocks: tuple[str, ...]


class GatedConcatenate(keras.layers.Layer):
    """The branches of a block, each times its gate, concatenated along the channels.

    Its inputs are a list of the four feature maps and of the gates `(batch, 4)`.
    """

    def call(self, inputs: list[Any]) -> Any:
        *branches, gates = inputs
        gated = [maps * ops.reshape(gates[:, at], (-1, 1, 1, 1)) for at, maps in enumerate(branches)]
        return ops.concatenate(gated, axis=-1)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        *branches, _ = input_shape
        return (*branches[0][:-1], sum(shape[-1] or 0 for shape in branches))


def gated(model: GoogLeNet, head: str) -> GatedNetwork:
    """The network up to the logits of a head, with a gate on each branch of the blocks that the head sees.

    Args:
        model: the network; it stays as it is.
        head: one of its heads.
    """
    layer = f"{head}_logits"
    features = any_size(model, [layer]).features([layer])
    inner = {one.name for one in features.layers}
    blocks = [block.name for block in model.spec.trunk() if isinstance(block, Inception) and block.name in inner]
    image = keras.Input(features.input.shape[1:], name="image", dtype="float32")
    gates = keras.Input((len(blocks), len(BRANCHES)), name="gates", dtype="float32")

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.layers.Concatenate) and layer.name in blocks:
            return GatedConcatenate(name=layer.name)([*args[0], gates[:, blocks.index(layer.name)]])
        return call_layer(layer, *args, **kwargs)

    both = keras.Model([features.input, gates], features.output[layer])
    return GatedNetwork(inference_copy(both, call, [image, gates]), tuple(blocks))


def open_gates(blocks: int) -> np.ndarray:
    """Gates of one: float32 `(blocks, 4)`."""
    return np.ones((blocks, len(BRANCHES)), "float32")


def gates_with_one_shut(blocks: int) -> np.ndarray:
    """Gates of one but for a single zero, each branch's in turn: float32 `(4 * blocks, blocks, 4)`."""
    count = blocks * len(BRANCHES)
    return (1 - np.eye(count, dtype="float32")).reshape(count, blocks, len(BRANCHES))

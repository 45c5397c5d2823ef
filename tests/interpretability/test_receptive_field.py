"""Receptive fields, against the pixels on which activations depend."""

import keras
import numpy as np
import pytest

from inception_v1 import GoogLeNet, Spec
from inception_v1.errors import UserError
from interpretability.receptive_field import receptive_field

LAYERS = (
    "conv1_7x7_s2",
    "pool1",
    "pool2",
    "inception_3a_1x1",
    "inception_3a_5x5",
    "inception_3b",
    "pool3",
    "inception_4a",
)


@pytest.mark.parametrize(
    ("variant", "size"), [("plain", (97, 112)), ("inception5h", (97, 112)), ("onnx_zoo", (112, 97))]
)
def test_activations_depend_on_all_pixels_of_their_receptive_fields_and_no_others(variant, size):
    """Every kernel is positive, and each pool is replaced by a mean so that no pixel is hidden."""
    import tensorflow as tf

    model = GoogLeNet(variant, input_shape=(*size, 1), width_multiplier=0.05, aux=False)
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 1 / np.prod(weight.shape[:-1]) if len(weight.shape) == 4 else 0.0))

    def averaged(layer):
        if not isinstance(layer, keras.layers.MaxPooling2D):
            return layer
        return keras.layers.AveragePooling2D(layer.pool_size, layer.strides, layer.padding, data_format="channels_last")

    net = keras.models.clone_model(model.features(LAYERS), clone_function=averaged)
    image = tf.ones((1, *size, 1))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(image)
        found = net(image)
        chosen = {}
        for name in LAYERS:
            height, width = found[name].shape[1:3]
            for place in ((0, 0), (height // 2, width // 3), (height - 1, width - 1)):
                chosen[name, place] = tf.reduce_sum(found[name][0, place[0], place[1]])
    for (name, place), value in chosen.items():
        gradient = np.abs(tape.gradient(value, image).numpy()[0, ..., 0])
        axes = receptive_field(model.spec, name, *size)
        assert tuple(axis.positions for axis in axes) == tuple(found[name].shape[1:3])
        for axis, at, other in zip(axes, place, (1, 0)):
            seen = np.flatnonzero(gradient.max(axis=other) > 0)
            assert (seen[0], seen[-1] + 1) == axis.span(at), (name, place)


def test_the_papers_sizes():
    fields = {name: receptive_field(Spec("paper"), name, 224, 224)[0] for name in ("pool2", "inception_4d", "pool4")}
    assert {name: (field.size, field.stride) for name, field in fields.items()} == {
        "pool2": (27, 8),
        "inception_4d": (363, 16),
        "pool4": (459, 32),
    }
    assert receptive_field(Spec("paper"), "aux1_logits", 224, 100)[1].span(0) == (0, 100)
    assert receptive_field(Spec("paper"), "inception_4d_pre_relu", 224, 224)[0] == fields["inception_4d"]


def test_unknown_layers_are_refused():
    with pytest.raises(UserError, match="Expected a layer of the body"):
        receptive_field(Spec("paper"), "input", 224, 224)

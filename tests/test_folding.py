import keras
import numpy as np
import pytest

from inception_v1 import VARIANTS, build_googlenet
from inception_v1.folding import folded


def settled(variant, **arguments):
    """A network whose normalisations have statistics, scales and shifts of their own, its logits spread to about 1."""
    arguments = {"input_shape": (63, 64, 3), "classes": 7, "width_multiplier": 0.1, "aux": False} | arguments
    model, random = build_googlenet(variant, **arguments), np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def logits_of(model, images, heads):
    return keras.Model(model.input, {head: model.get_layer(f"{head}_logits").output for head in heads})(images)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_stay_within_1e_5(variant):
    model = settled(variant, aux=variant in ("torchvision", "batchnorm"))
    heads = model.spec.heads
    images = np.random.default_rng(1).normal(size=(3, *model.spec.input_shape)).astype("float32") * 3
    expected, found = logits_of(model, images, heads), folded(model, aux=len(heads) > 1)(images)
    assert set(found) == set(heads)
    for head in heads:
        spread = float(np.std(expected[head]))
        assert spread > 0.01
        np.testing.assert_allclose(found[head], expected[head], rtol=0, atol=1e-5 * max(1, spread))


def test_only_what_inference_needs_is_left():
    model = settled("batchnorm")
    net = folded(model)
    assert not [
        layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization | keras.layers.Dropout)
    ]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    biases = sum(layer.filters for layer in convolutions)
    normalised = sum(layer.count_params() for layer in model.layers if layer.name.endswith("_bn"))
    assert net.count_params() == model.count_params() - normalised + biases
    assert {layer.name for layer in net.layers} < {layer.name for layer in model.layers}


def test_half_precision_is_left_behind():
    keras.config.set_dtype_policy("mixed_bfloat16")
    net = folded(settled("paper"))
    assert {layer.compute_dtype for layer in net.layers if layer.name != "image"} == {net.input.dtype} == {"float32"}


def test_what_cannot_be_folded_is_said():
    with pytest.raises(ValueError, match="Expected a model with a main head"):
        folded(settled("plain", include_top=False))
    with pytest.raises(ValueError, match="auxiliary heads to keep"):
        folded(settled("plain"), aux=True)

import keras
import numpy as np
import pytest

from inception_v1 import VARIANTS, build_googlenet
from inception_v1.fold_batchnorm import folded
from inception_v1.preprocessing import normalize


def pictures(count, height, width, channels, seed=0):
    """uint8 pictures of large patches, each of another brightness: a network tells them apart."""
    random = np.random.default_rng(seed)
    patches = random.uniform(0, 1, (count, 4, 4, channels)) * random.uniform(0.2, 1, (count, 1, 1, 1))
    return np.round(
        255 * np.kron(patches, np.ones((1, -(-height // 4), -(-width // 4), 1)))[:, :height, :width]
    ).astype("uint8")


def settled(variant, **arguments):
    """A network as if trained: its normalisations fit pictures, and its main logits differ by about 1 between them."""
    arguments = {"input_shape": (63, 64, 3), "classes": 7, "width_multiplier": 0.1, "aux": False} | arguments
    model, random = build_googlenet(variant, **arguments), np.random.default_rng(0)
    images = normalize(pictures(32, *model.spec.input_shape), model.spec.pixels)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # the running statistics become those of these pictures
        layer.beta.assign(random.normal(0, 0.3, layer.beta.shape))
        if layer.scale:
            layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape))
    model(images, training=True)
    for layer in norms:  # channels that hardly vary would turn rounding into signal
        layer.moving_variance.assign(np.maximum(layer.moving_variance, np.mean(layer.moving_variance)))
    if model.spec.include_top:
        logits = np.asarray(logits_of(model, images, ["main"])["main"])
        last, scale = model.get_layer("main_logits"), 1 / logits.std(axis=0).mean()
        last.set_weights([last.kernel * scale, last.bias * scale - logits.mean(axis=0) * scale])
    return model


def logits_of(model, images, heads):
    return keras.Model(model.input, {head: model.get_layer(f"{head}_logits").output for head in heads})(images)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_stay_within_1e_5(variant):
    model = settled(variant, aux=variant in ("torchvision", "batchnorm"))
    heads = model.spec.heads
    images = normalize(pictures(5, *model.spec.input_shape, seed=1), model.spec.pixels)
    expected, found = logits_of(model, images, heads), folded(model, aux=len(heads) > 1)(images)
    assert set(found) == set(heads)
    assert 0.2 < np.std(expected["main"], axis=0).mean() < 2
    for head in heads:
        terms = np.abs(expected[head] - model.get_layer(f"{head}_logits").bias).max()  # what rounding is relative to
        np.testing.assert_allclose(found[head], expected[head], rtol=0, atol=1e-5 * max(1, float(terms)))


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

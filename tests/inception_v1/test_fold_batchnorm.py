import keras
import numpy as np
import pytest

from inception_v1 import VARIANTS
from inception_v1.fold_batchnorm import fold_batchnorm
from inception_v1.preprocessing import normalize
from tests.helpers.images import patch_images
from tests.helpers.networks import logits_of, trained_network

pytestmark = pytest.mark.usefixtures("few_blocks")


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_stay_within_1e_5(variant):
    model = trained_network(variant, aux=variant in ("torchvision", "batchnorm"))
    heads = model.spec.heads
    images = normalize(patch_images(5, *model.spec.input_shape, seed=1), model.spec.pixels)
    expected, found = logits_of(model, images, heads), fold_batchnorm(model, aux=len(heads) > 1)(images)
    assert set(found) == set(heads)
    assert 0.2 < np.std(expected["main"], axis=0).mean() < 2
    for head in heads:
        terms = np.abs(expected[head] - model.get_layer(f"{head}_logits").bias).max()  # what rounding is relative to
        np.testing.assert_allclose(found[head], expected[head], rtol=0, atol=1e-5 * max(1, float(terms)))


def test_only_what_inference_needs_is_left():
    model = trained_network("batchnorm")
    net = fold_batchnorm(model)
    assert not [
        layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization | keras.layers.Dropout)
    ]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    biases = sum(layer.filters for layer in convolutions)
    normalized = sum(layer.count_params() for layer in model.layers if layer.name.endswith("_bn"))
    assert net.count_params() == model.count_params() - normalized + biases
    assert {layer.name for layer in net.layers} < {layer.name for layer in model.layers}


def test_half_precision_is_left_behind():
    keras.config.set_dtype_policy("mixed_bfloat16")
    net = fold_batchnorm(trained_network("paper"))
    assert {layer.compute_dtype for layer in net.layers if layer.name != "image"} == {net.input.dtype} == {"float32"}


def test_what_cannot_be_folded_is_said():
    with pytest.raises(ValueError, match="Expected a model with a main head"):
        fold_batchnorm(trained_network("plain", include_top=False))
    with pytest.raises(ValueError, match="auxiliary heads to keep"):
        fold_batchnorm(trained_network("plain"), aux=True)

"""Sampled activations and their attributions."""

import keras
import numpy as np
import pytest
from keras import ops

from inception_v1 import GoogLeNet
from inception_v1.preprocessing import normalize
from interpretability.activation_samples import sample_activations
from interpretability.gradients import value_and_gradient
from interpretability.network import inference_features
from tests.helpers.networks import patch_images

pytestmark = pytest.mark.usefixtures("few_blocks")

IMAGES = patch_images(3, 72, 72, 3)


@pytest.fixture(scope="module")
def network():
    return GoogLeNet("plain", input_shape=(72, 72, 3), width_multiplier=0.05, aux=False, classes=4)


@pytest.fixture(scope="module")
def headless():
    return GoogLeNet("plain", input_shape=(40, 40, 3), width_multiplier=0.05, include_top=False)


@pytest.mark.every_backend
@pytest.mark.parametrize("layer", ["inception_4a_pre_relu", "inception_5b_3x3"])
def test_attributions_are_activations_times_the_gradients_of_the_logits(network, layer):
    found = sample_activations(network, layer, [IMAGES], 10)
    behind = layer.removesuffix("_pre_relu")
    whole = inference_features(network, [layer, behind, "main_logits"])
    inputs = np.asarray(normalize(IMAGES, network.spec.pixels), "float32")
    maps = {name: np.asarray(one) for name, one in whole(inputs).items()}
    to_logits = keras.Model([whole.input, whole.output[behind]], whole.output["main_logits"])
    gradient = value_and_gradient(lambda net, arrays, k: (ops.sum(ops.take(net(arrays), k, axis=1)), ()), to_logits)
    by_class = [np.asarray(gradient([inputs, maps[behind]], np.array(k, "int32"))[2][1]) for k in range(4)]
    for image, activation in enumerate(found.activations):
        row, column = np.argwhere(np.all(np.isclose(maps[layer][image], activation, atol=1e-6), axis=-1))[0]
        own = maps[behind][image, row, column]
        expected = [(own * one[image, row, column]).sum() for one in by_class]
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found.attributions[image], expected, rtol=1e-3, atol=1e-5)


def test_of_more_images_a_random_choice_is_kept(headless):
    images = np.concatenate([IMAGES] * 5)
    found, same = (sample_activations(headless, "conv1_7x7_s2", np.split(images, parts), 7, seed=1) for parts in (3, 5))
    np.testing.assert_allclose(found.activations, same.activations, rtol=0, atol=1e-5)
    assert len(np.unique(found.activations, axis=0)) > 2
    assert found.activations.shape[0] == 7
    assert found.attributions.shape == (7, 0)  # there is no head


def test_positions_are_random_and_not_on_the_border(headless):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), "uint8")
    maps = np.asarray(headless.features(["conv1_7x7_s2"])(normalize(pixels, headless.spec.pixels))["conv1_7x7_s2"])[0]
    found = sample_activations(headless, "conv1_7x7_s2", [pixels] * 100, 1000)
    places = np.stack([np.argwhere(np.all(np.isclose(maps, one, atol=1e-5), axis=-1))[0] for one in found.activations])
    assert len(np.unique(places, axis=0)) > 50
    assert (places.min(), places.max()) == (1, len(maps) - 2)

"""Caricatures and inversions of images."""

import numpy as np
import pytest

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from interpretability import caricature, feature_inversion
from tests.helpers.networks import patch_images

pytestmark = pytest.mark.usefixtures("few_blocks")

IMAGE = patch_images(1, 32, 40, 3)[0]
LAYER = "conv2_3x3"


@pytest.fixture(scope="module")
def network():
    return GoogLeNet("plain", input_shape=(32, 40, 3), stem="small", width_multiplier=0.1, aux=False)


def activations(network, image):
    return np.asarray(network.features([LAYER])(normalize(image[None], network.spec.pixels))[LAYER])


@pytest.mark.every_backend
def test_a_caricature_has_a_large_product_with_the_image(network):
    found = caricature(network, IMAGE, LAYER, steps=40, transforms=[])
    assert found.images.shape == (1, *IMAGE.shape)
    own, other = activations(network, IMAGE), activations(network, found.images[0] * 255)
    assert (own * other).sum() > 1.3 * (own * activations(network, 127.5 + 0 * IMAGE)).sum()
    assert found.objective[-1] == pytest.approx((own * other).sum(), rel=0.05)


@pytest.mark.every_backend
def test_an_inversion_has_the_activations_of_the_image(network):
    found = feature_inversion(network, IMAGE, "conv2d2", steps=120, transforms=[], seed=1)
    own, other = activations(network, IMAGE), activations(network, found.images[0] * 255)
    missing = np.abs(own - other).mean() / np.abs(own).mean()
    assert missing < 0.3
    calm = feature_inversion(network, IMAGE, LAYER, 100, steps=20, transforms=[]).images[0]
    assert np.abs(np.diff(calm, axis=0)).mean() < 0.5 * np.abs(np.diff(found.images[0], axis=0)).mean()


@pytest.mark.parametrize("function", [caricature, feature_inversion])
def test_other_images_and_layers_are_refused(network, function):
    with pytest.raises(UserError, match=r"Expected an image \(height, width, 3\); Received: shape \(32, 40, 1\)"):
        function(network, IMAGE[..., :1], LAYER)
    with pytest.raises(UserError, match="Did you mean 'conv2_3x3"):
        function(network, IMAGE, "conv2_3x4")


def test_an_image_that_activates_nothing_cannot_be_inverted(network):
    layer = network.get_layer(LAYER)
    stored = layer.get_weights()
    layer.set_weights([0 * stored[0], 0 * stored[1] - 1])
    with pytest.raises(UserError, match="Expected an image that activates 'conv2_3x3'"):
        feature_inversion(network, IMAGE, LAYER)
    layer.set_weights(stored)

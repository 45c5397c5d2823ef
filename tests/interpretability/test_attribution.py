"""Attributions, against what each method promises."""

import numpy as np
import pytest

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from interpretability import Explainer, attribute
from interpretability.attribution import METHODS
from tests.helpers.images import patch_images
from tests.helpers.networks import trained_network

pytestmark = pytest.mark.usefixtures("few_blocks")

IMAGES = patch_images(2, 64, 64, 3, seed=3)


@pytest.fixture(scope="module")
def network():
    return trained_network("paper", input_shape=(64, 64, 3), aux=True)


@pytest.fixture(scope="module")
def explainer(network):
    return Explainer(network)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "guided_ig"])
def test_every_method_explains_the_best_class(network, explainer, method):
    found = explainer.attribute(IMAGES, method)
    logits = np.asarray(network.features(["main_logits"])(IMAGES - np.float32([123, 117, 104]))["main_logits"])
    assert found.classes.tolist() == logits.argmax(axis=1).tolist()
    np.testing.assert_allclose(found.logits, logits.max(axis=1), rtol=0, atol=1e-4)
    assert found.maps.shape == (2, 2, 2) if method in ("cam", "gradcam") else (2, 64, 64)
    assert np.isfinite(found.maps).all()
    if method != "gradcam":  # whose negative part is cut off, which may be all of it
        assert (found.maps.std(axis=(1, 2)) > 0).all()


def test_class_activation_maps_add_up_to_the_logit(network, explainer):
    found = explainer.attribute(IMAGES, "cam", classes=[5, 0])
    bias = np.asarray(network.get_layer("main_logits").bias)
    np.testing.assert_allclose(found.maps.mean(axis=(1, 2)) + bias[[5, 0]], found.logits, rtol=2e-5, atol=2e-5)


@pytest.mark.every_backend
def test_grad_cam_is_the_positive_part_of_the_class_activation_map():
    network = GoogLeNet("plain", input_shape=(40, 40, 3), width_multiplier=0.05, aux=False, classes=4)
    images = patch_images(1, 72, 72, 3)  # of another size than the network's
    explainer = Explainer(network)
    cam, gradcam = (explainer.attribute(images, method).maps for method in ("cam", "gradcam"))
    assert cam.shape == (1, 2, 2)
    assert cam.max() > 0
    positions = cam[0].size
    np.testing.assert_allclose(gradcam * positions, np.maximum(cam, 0), rtol=0, atol=1e-5 * np.abs(cam).max())


def test_integrated_gradients_are_complete_within_a_hundredth(explainer):
    found = explainer.attribute(IMAGES, "integrated_gradients", classes=[5, 0])
    black = explainer.attribute(np.zeros_like(IMAGES), "cam", classes=[5, 0])
    np.testing.assert_allclose(found.maps.sum(axis=(1, 2)), found.logits - black.logits, rtol=0.011)


def test_guided_integrated_gradients_run_for_gray_networks():
    network = GoogLeNet("plain", input_shape=(32, 32, 1), width_multiplier=0.05, aux=False, classes=4, stem="small")
    found = attribute(network, patch_images(1, 32, 32, 1), "guided_ig")
    assert found.maps.shape == (1, 32, 32)
    assert found.maps.std() > 0


def test_auxiliary_heads_are_explained_on_their_blocks(network):
    explainer = Explainer(network, "aux1")
    found = explainer.attribute(IMAGES, "gradcam")
    assert found.maps.shape == (2, 4, 4)
    logits = np.asarray(network.features(["aux1_logits"])(IMAGES - np.float32([123, 117, 104]))["aux1_logits"])
    assert found.classes.tolist() == logits.argmax(axis=1).tolist()
    with pytest.raises(UserError, match="Expected the main head for class activation maps"):
        explainer.attribute(IMAGES, "cam")
    with pytest.raises(UserError, match=r"Expected images of shape \('images', 64, 64, 3\)"):
        explainer.attribute(IMAGES[:, :40, :40], "gradcam")


def test_noise_follows_from_the_seed_and_leaves_numpys_alone(explainer):
    np.random.seed(1)
    expected = np.random.normal()
    np.random.seed(1)
    one, same, other = (explainer.attribute(IMAGES[:1], "smoothgrad", seed=seed).maps for seed in (0, 0, 1))
    assert np.random.normal() == expected
    np.testing.assert_array_equal(one, same)
    assert not (one == other).all()


def test_what_does_not_fit_is_refused(network, explainer):
    with pytest.raises(UserError, match="method='deeplift'"):
        explainer.attribute(IMAGES, "deeplift")
    with pytest.raises(UserError, match="Expected a class from 0 to 6 for each image"):
        explainer.attribute(IMAGES, classes=[1, 7])
    with pytest.raises(UserError, match="Expected images of shape"):
        explainer.attribute(IMAGES[..., :1])
    with pytest.raises(UserError, match=r"heads \['main', 'aux1', 'aux2'\]; Received: 'aux3'"):
        attribute(network, IMAGES, head="aux3")

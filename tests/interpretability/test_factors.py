"""Factors of activations, against Lucid's channel reducer and what they promise."""

import numpy as np
import pytest

from inception_v1.errors import UserError
from interpretability import factor_icons, factorize
from interpretability.factors import reduce_channels
from tests.helpers.networks import patch_images, trained_network
from tests.oracles import lucid

IMAGE = patch_images(1, 96, 64, 3)[0]


@pytest.fixture(scope="module")
def network():
    return trained_network("plain", input_shape=(96, 64, 3), classes=4)


def test_factors_are_lucids_in_the_order_of_its_notebook():
    stored = lucid.case("factors")
    activations, maps, directions = stored["activations"][0], stored["maps"][0], stored["directions"]
    found = reduce_channels(activations, 3)
    order = np.argsort(maps.transpose(2, 0, 1).max(1).argmax(1), kind="stable")
    np.testing.assert_allclose(found.maps, maps[..., order], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.directions, directions[order], rtol=1e-5, atol=1e-5)
    missing = np.linalg.norm(activations - maps @ directions) / np.linalg.norm(activations)
    assert found.missing == pytest.approx(missing, rel=1e-4)


def test_activations_of_an_image_are_factorized_and_rendered(network):
    found = factorize(network, IMAGE, "mixed3a", 2)
    rows, columns, count = found.maps.shape
    assert count == len(found.directions) == 2
    assert rows > columns > 1
    assert 0 < found.missing < 1
    icons = factor_icons(network, "mixed3a", found, steps=2, size=32)
    assert icons.shape == (2, 32, 32, 3)
    assert np.abs(icons[0] - icons[1]).max() > 0.01


def test_what_cannot_be_factorized_is_refused(network):
    for layer, count, message in (
        ("inception_3a_pre_relu", 2, "Expected a layer with positions, behind a ReLU"),
        ("main_logits", 2, "Expected a layer with positions, behind a ReLU"),
        ("inception_3a", 0, r"Expected from 1 to \d+ factors of 'inception_3a'"),
        ("inception_3a", 999, r"Expected from 1 to \d+ factors of 'inception_3a'"),
        ("inception_3x", 2, "Did you mean 'inception_3"),
    ):
        with pytest.raises(UserError, match=message):
            factorize(network, IMAGE, layer, count)
    with pytest.raises(UserError, match=r"Expected an image \(height, width, 3\); Received: shape \(96, 64\)"):
        factorize(network, IMAGE[..., 0], "inception_3a", 2)

"""The checks of attributions, on a network whose attributions are known."""

import numpy as np
import pytest

from inception_v1 import GoogLeNet
from interpretability.checks import FRACTIONS, check_attributions, curve, randomized, rank_correlation
from tests.helpers.images import patch_images

pytestmark = pytest.mark.usefixtures("few_blocks")


class LeftPixels:
    """In place of an `Explainer`: the logit of class 1 is the sum of the left half of the image."""

    def logits(self, inputs):
        left = (inputs[:, :, :4] * 127.5 + 127.5).sum(axis=(1, 2, 3)) / 255
        return np.stack([np.zeros(len(inputs)), left - 8], axis=1)


def test_pixels_that_matter_fall_first_and_rise_first():
    image, left = np.full((4, 8, 1), 255, "uint8"), np.arange(8) < 4
    good, bad = (curve(LeftPixels(), "signed", image, np.tile(v, (4, 1)), 1) for v in (left * 1.0, left * -1.0))
    whole = 1 / (1 + np.exp(-8))
    assert good.shape == (2, FRACTIONS + 1)
    np.testing.assert_allclose(good[:, [0, -1]], [[whole, 1 - whole], [1 - whole, whole]], atol=1e-6)
    np.testing.assert_allclose(good[:, FRACTIONS // 2], [1 - whole, whole], atol=1e-6)
    np.testing.assert_allclose(bad[:, FRACTIONS // 2], [whole, 1 - whole], atol=1e-6)
    assert good[0].mean() < bad[0].mean()
    assert good[1].mean() > bad[1].mean()


def test_constant_maps_have_no_rank_correlation():
    one = np.arange(6.0).reshape(2, 3)
    assert rank_correlation(one, one**3) == pytest.approx(1)
    assert rank_correlation(one, np.zeros((2, 3))) == 0


def test_a_map_that_depends_on_the_weights_changes_with_them():
    network = GoogLeNet("plain", input_shape=(32, 32, 1), width_multiplier=0.05, aux=False, classes=4, stem="small")
    one, same, other = (randomized(network, "main", "classifier", seed).get_weights() for seed in (0, 0, 1))
    assert [np.array_equal(a, b) for a, b in zip(one, same)] == [True] * len(one)
    changed = [variable.path for variable, a, b in zip(network.weights, one, other) if not np.array_equal(a, b)]
    assert changed == [network.get_layer("main_logits").kernel.path]
    (check,) = check_attributions(network, patch_images(2, 32, 32, 1), ["smoothgrad"]).values()
    assert abs(check.random_network) < 0.5
    assert abs(check.random_network) < abs(check.random_classifier) + 0.5 <= 1.5
    assert 0 < check.deletion < 1
    assert 0 < check.insertion < 1

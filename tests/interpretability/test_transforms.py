"""Transforms, against what Lucid makes of the same images and draws."""

import numpy as np
import pytest

from interpretability import transforms as t
from tests.oracles import lucid

pytestmark = pytest.mark.every_backend
STORED = lucid.case("transforms")
IMAGES = STORED["images"]
GENERATOR = np.random.default_rng(0)


def applied(transform, images=IMAGES, draw=None):
    draw = transform.draw(GENERATOR, images.shape) if draw is None else draw
    found = np.asarray(transform.apply(images, draw))
    assert found.shape[1:3] == transform.size(images.shape[1:3], draw)
    return found


def check(found, name):
    np.testing.assert_allclose(found, STORED[name], rtol=0, atol=1e-5, err_msg=name)


def test_padding_is_lucids():
    check(applied(t.Pad(3)), "pad")
    check(applied(t.Pad(3, mode="reflect")), "pad, reflect")
    border = applied(t.Pad(1, value=None))[:, 0]
    assert border.min() == border.max() != 0.5


def test_a_crop_is_lucids_of_the_same_draw():
    check(applied(t.Jitter(7), draw=(STORED["jitter, draw"].astype("int32"),)), "jitter")
    draws = np.concatenate([t.Jitter(2).draw(GENERATOR, IMAGES.shape) for _ in range(50)])
    assert set(draws.ravel().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("scale", lucid.SCALES)
def test_scaling_is_lucids(scale):
    check(applied(t.RandomScale((scale,))), f"scale {scale:g}")


def test_rotations_are_lucids():
    for degrees in range(-10, 11):
        check(applied(t.RandomRotate((degrees,))), f"rotate {degrees}")


def test_the_center_at_a_fixed_size_is_lucids():
    check(applied(t.CropOrPad(15, 41)), "crop or pad")


def test_random_colors_behind_an_image_are_lucids_of_the_same_draw():
    stored = lucid.case("alpha")
    draw = (0.5 * stored["draw"].transpose(1, 0, 2, 3, 4),)  # Lucid draws image by image
    found = applied(t.CollapseAlpha(), stored["images"], draw)
    np.testing.assert_allclose(found, stored["result"], rtol=0, atol=1e-5)
    (own,) = t.CollapseAlpha().draw(GENERATOR, stored["images"].shape)
    assert own.shape == draw[0].shape
    assert 0.4 < own.std() < 0.6


def test_the_standard_transforms_are_lucids_and_in_proportion_below_128_pixels():
    pad, first, scale, rotate, last = t.standard_transforms()
    assert (pad, first, last) == (t.Pad(12), t.Jitter(8), t.Jitter(4))
    assert scale.scales == tuple(lucid.SCALES)
    assert sorted(rotate.degrees) == sorted([*range(-10, 11), 0, 0, 0, 0, 0])
    assert t.standard_transforms(32)[::4] == [t.Pad(3), t.Jitter(1)]
    draws, size = t.draw_all(t.standard_transforms(32), GENERATOR, (2, 32, 32, 1))
    assert t.apply_all(t.standard_transforms(32), np.zeros((2, 32, 32, 1), "float32"), draws).shape == (2, *size, 1)

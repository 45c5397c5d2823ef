"""Which figures `explain` draws of layers."""

from types import SimpleNamespace

import numpy as np
import pytest

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from interpretability import layer_figures
from interpretability.layer_figures import LayerFigures
from interpretability.overlays import factor_overlay
from tests.helpers.networks import patch_images

pytestmark = pytest.mark.usefixtures("few_blocks")

IMAGES = patch_images(2, 32, 32, 1)


@pytest.fixture(scope="module")
def network():
    return GoogLeNet("plain", input_shape=(32, 32, 1), stem="small", width_multiplier=0.1, aux=False)


def test_each_image_has_the_figures_of_every_layer(network, monkeypatch):
    """What is rendered has tests of its own."""

    def render(gray):
        return lambda model, image, layer, **_: SimpleNamespace(images=np.full((1, *image.shape), gray))

    monkeypatch.setattr(layer_figures, "caricature", render(0.2))
    monkeypatch.setattr(layer_figures, "feature_inversion", render(0.4))
    monkeypatch.setattr(layer_figures, "factor_icons", lambda *_, **__: np.full((3, 20, 20, 1), 0.6))
    wanted = LayerFigures(("conv2_3x3", "mixed4a"), ("conv2_3x3",), ("conv2_3x3",), count=3)
    found = wanted.draw(network, IMAGES)
    assert len(found) == 2
    for sections in found:
        assert [section.title[:9] for section in sections] == ["Caricatur", "Inversion", "3 factors"]
        names = [figure.name for section in sections for figure in section.figures]
        assert names == [
            *("caricature-conv2_3x3", "caricature-mixed4a", "inversion-conv2_3x3", "factors-conv2_3x3"),
            *(f"factors-conv2_3x3-{number}" for number in range(3)),
        ]
        (caricature, _), (inversion,), (every, first, *_) = (section.figures for section in sections)
        assert (caricature.pixels.max(), inversion.pixels.max()) == (51, 102)
        assert every.pixels.shape == (224, 224, 3)
        assert first.pixels.shape == (224, 448, 3)
        assert (first.pixels[:, 224:] == 153).all()
    assert LayerFigures().draw(network, IMAGES) == [[], []]


def test_other_layers_and_numbers_are_refused(network):
    for wanted, message in (
        (LayerFigures(caricature=["conv2_3x4"]), "Did you mean 'conv2_3x3"),
        (LayerFigures(factors=["inception_4x"]), "Did you mean 'inception_4"),
        (LayerFigures(count=0), "Expected count and steps >= 1; Received: 0, 512"),
    ):
        with pytest.raises(UserError, match=message):
            wanted.check(network)


def test_factors_are_drawn_where_they_are_active_in_their_color():
    maps = np.zeros((2, 2, 2))
    maps[0, 0, 0] = maps[1, 1, 1] = 2
    drawn = factor_overlay(np.full((32, 32, 1), 128, "uint8"), maps, np.array([0, 2 / 3]), 2.0).astype(int)
    (red, _, blue), (other_red, _, other_blue) = drawn[0, 0], drawn[-1, -1]
    assert red > blue + 100
    assert other_blue > other_red + 100
    assert np.ptp(drawn[0, -1]) == 0

"""Attributions on torchvision's network, against those of Captum on the original."""

import numpy as np
import pytest

from inception_v1 import build_googlenet, load_weights
from interpretability import Explainer
from tests.oracles import captum, torchvision

EXPLAINED = [
    # rounding moves a ReLU across zero at some of the 200 points, each of which adds 1/200 of a gradient
    ("main", "integrated_gradients", 2e-3),
    ("main", "occlusion", 1e-4),
    ("main", "gradcam", 1e-4),
    ("aux1", "gradcam", 1e-4),
    ("aux2", "gradcam", 1e-4),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    model = build_googlenet("torchvision", input_shape=(captum.SIZE, captum.SIZE, 3))
    load_weights(model, torchvision.write(tmp_path_factory.mktemp("weights")))
    return model


@pytest.mark.parametrize(("head", "method", "tolerance"), EXPLAINED)
def test_attributions_equal_captums(network, head, method, tolerance):
    found, stored = Explainer(network, head).attribute(captum.image(), method), np.load(captum.FIXTURE)
    assert found.classes[0] == stored[f"class_{head}"]
    expected = stored[f"{method}_{head}"]
    assert expected.max() > 0
    np.testing.assert_allclose(found.maps[0], expected, rtol=0, atol=tolerance * np.abs(expected).max())

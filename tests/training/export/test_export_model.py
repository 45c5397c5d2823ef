import keras
import numpy as np

from inception_v1 import build_googlenet
from training.export.export_model import ExportModel


def test_sizes_that_a_network_leaves_open_are_fixed(tmp_path):
    model = build_googlenet("plain", input_shape=(None, None, 1), classes=4, aux=False, width_multiplier=0.1)
    network = ExportModel(model, list("abcd"))
    assert network.shape == (224, 224, 1)
    assert network.model.input_shape == (None, 224, 224, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *network.shape), "uint8")
    expected = model.classifier()(pixels / 127.5 - 1)
    np.testing.assert_allclose(network.expected(pixels)["probabilities"], expected, atol=1e-6)


def test_logits_come_out_as_probabilities():
    model = build_googlenet(
        "plain", input_shape=(32, 32, 1), classes=4, aux=False, width_multiplier=0.1, classifier_activation=None
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), "uint8")
    found = ExportModel(model, list("abcd")).expected(pixels)["probabilities"]
    np.testing.assert_allclose(found, keras.ops.softmax(model.classifier()(pixels / 127.5 - 1)), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)

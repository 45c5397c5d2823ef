"""Slices compute what `remove_channels` builds, in every family, with the statistics of batches and with known ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_v1.dependencies import channels
from inception_v1.preprocessing import normalize
from inception_v1.slimming import remove_channels
from tests.helpers.images import patch_images
from tests.helpers.networks import logits_of, trained_network
from training.transfer import estimate_statistics
from tuning.slice_scores import SliceScorer
from tuning.sliced_network import SlicedNetwork

pytestmark = pytest.mark.usefixtures("few_blocks")


def some_widths(spec, seed=0):
    """Random widths, equal in the two convolutions of a double "5x5" branch."""
    random = np.random.default_rng(seed)
    drawn = {name: int(random.integers(1, own + 1)) for name, own in channels(spec).items()}
    return {name: drawn[name.replace("_5x5_first", "_5x5")] for name in drawn}


@pytest.mark.parametrize(
    ("variant", "arguments"),
    [
        ("paper", {"input_shape": (31, 34, 3), "stem": "small"}),  # LRN, and pooling that rounds up
        ("torchvision", {"input_shape": (41, 64, 1)}),  # padded explicitly; adaptive pools in the heads
        ("cifar", {"input_shape": (16, 17, 3), "stem": "cifar"}),  # the 5x5 as two 3x3
        ("slim", {"input_shape": (33, 32, 1), "reduction": False}),  # the naive module; no scale in normalization
    ],
)
@pytest.mark.usefixtures("all_blocks")
def test_a_slice_is_the_network_without_the_other_channels(variant, arguments):
    model = trained_network(variant, **{"classes": 3, "aux": True} | arguments)
    images = normalize(patch_images(16, *model.spec.input_shape), model.spec.pixels)
    widths = some_widths(model.spec)
    removed = remove_channels(model, {name: range(count) for name, count in widths.items()})
    logits, statistics = SlicedNetwork(model)(images, tf.constant(list(widths.values())))
    normalized = [layer for layer in removed.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {f"{name}_bn" for name in statistics} == {layer.name for layer in normalized}
    estimate_statistics(removed, [images])
    for layer in normalized:
        mean, variance = statistics[layer.name.removesuffix("_bn")]
        np.testing.assert_allclose(mean, layer.moving_mean, atol=1e-5)
        np.testing.assert_allclose(variance, layer.moving_variance, rtol=1e-4, atol=1e-5)
    expected = logits_of(removed, images, removed.spec.heads)
    assert logits.keys() == expected.keys()
    for head, values in expected.items():
        np.testing.assert_allclose(logits[head], values, atol=3e-5 * max(1, np.abs(values).max()))


def test_a_score_is_that_of_the_network_with_statistics_measured_anew():
    """One trace serves all widths."""
    model = trained_network("batchnorm", input_shape=(16, 16, 1), classes=10, aux=True, stem="small", reduction=False)
    random = np.random.default_rng(2)
    images = random.normal(size=(130, 16, 16, 1)).astype("float32")
    labels = random.integers(10, size=130)
    validation = tf.data.Dataset.from_tensor_slices((images[:37], labels[:37])).batch(16)
    weights = {"main": 1.0, "aux1": 0.3, "aux2": 0.2}
    score = SliceScorer(model, images, validation, weights)
    for seed in range(2):
        widths = some_widths(model.spec, seed)
        removed = remove_channels(model, {name: range(count) for name, count in widths.items()})
        estimate_statistics(removed, np.array_split(images, 2))
        removed.compile(loss_weights=weights, run_eagerly=True)
        expected = removed.evaluate(images[:37], labels[:37], batch_size=37, verbose=0, return_dict=True)
        found = score(np.array(list(widths.values()), "int32"))
        assert found.keys() == {f"val_{name}" for name in expected}
        for name, value in expected.items():
            assert found[f"val_{name}"] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    assert score._predict.experimental_get_tracing_count() == score._measure.experimental_get_tracing_count() == 1

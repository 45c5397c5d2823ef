"""Dataset examples, against a search through all activations at once."""

import numpy as np
import pytest

from interpretability.examples import Example, TopExamples, strip, top_examples
from interpretability.receptive_field import Axis
from tests.helpers.images import patch_images
from tests.helpers.networks import trained_network

pytestmark = pytest.mark.usefixtures("few_blocks")

FIELDS = (Axis(-2, 8, 4, 4, 16), Axis(0, 5, 4, 3, 13))


def brute_force(maps, labels, channel, count):
    """Every image's first largest activation, sorted."""
    rows = []
    for image, one in enumerate(maps[..., channel]):
        row, column = np.unravel_index(one.argmax(), one.shape)
        rows.append(Example(image, float(one[row, column]), int(row), int(column), int(labels[image])))
    return sorted(rows, key=lambda row: (-row.value, row.image))[:count]


def test_batches_of_any_size_find_what_a_search_finds():
    random = np.random.default_rng(0)
    maps = np.round(random.normal(0, 1, (23, 4, 3, 6)), 1).astype("float32")  # rounded: with ties
    maps[..., 5] = 0  # a dead channel
    pixels, labels = random.integers(0, 256, (23, 16, 13, 1), "uint8"), random.integers(0, 9, 23)
    found = TopExamples(4, FIELDS, 10)
    for start, end in ((0, 3), (3, 4), (4, 20), (20, 23)):
        found.update(maps[start:end], pixels[start:end], labels[start:end])
    for channel in range(6):
        expected = brute_force(maps, labels, channel, 4)
        assert found.of(channel) == expected
        for example, crop in zip(expected, found.crops(channel), strict=True):
            top, left = example.row * 4 - 2, example.column * 4
            whole = pixels[example.image]
            np.testing.assert_array_equal(crop, whole[max(top, 0) : top + 8, left : left + 5])
    np.testing.assert_allclose(found.best_mean, maps.mean(axis=(1, 2)).max(axis=0), rtol=1e-6, atol=1e-7)
    assert [example.image for example in found.of(5)] == [0, 1, 2, 3]
    means = {label: maps[labels == label, :, :, 2].mean() for label in set(labels.tolist())}  # 9 has no image
    best = sorted(means, key=means.get, reverse=True)
    assert [label for label, _ in found.best_classes(2, 20)] == best
    np.testing.assert_allclose([mean for _, mean in found.best_classes(2, 3)], [means[c] for c in best[:3]], rtol=1e-5)


def test_fewer_images_than_examples_are_all_there():
    found = TopExamples(9, FIELDS, 3)
    found.update(np.ones((2, 4, 3, 1), "float32"), np.zeros((2, 16, 13, 1), "uint8"), np.arange(2))
    assert [example.label for example in found.of(0)] == [0, 1]


def test_the_examples_of_a_network_see_normalized_images():
    model = trained_network("batchnorm", input_shape=(32, 32, 3), stem="small")
    features, images = model.features(["inception_4a"]), patch_images(7, 32, 32, 3)
    batches = [(images[:5], np.arange(5)), (images[5:], np.arange(5, 7))]
    found = top_examples(features, model.spec, "inception_4a", batches, 3)
    maps = np.asarray(features((images.astype("float32") - 127.5) / 127.5)["inception_4a"])
    for channel in range(maps.shape[3]):
        expected = brute_force(maps, np.arange(7), channel, 3)
        assert [example[:1] + example[2:] for example in found.of(channel)] == [e[:1] + e[2:] for e in expected]
        np.testing.assert_allclose(
            [e.value for e in found.of(channel)], [e.value for e in expected], rtol=1e-5, atol=1e-5
        )


def test_large_crops_are_reduced_and_stand_side_by_side():
    field = Axis(0, 300, 1, 1, 300)
    found = TopExamples(2, (field, field), 1)
    pixels = np.arange(2, dtype="uint8")[:, None, None, None] * np.full((1, 300, 150, 3), 90, "uint8")
    found.update(np.arange(2, dtype="float32")[:, None, None, None], pixels, np.zeros(2, int))
    first, second = found.crops(0)
    assert first.shape == second.shape == (96, 48, 3)
    tiles = strip([first, second], 10)
    assert tiles.shape == (10, 20, 3)
    assert (tiles[:, :10] == 90).all()
    assert (tiles[:, 10:] == 0).all()

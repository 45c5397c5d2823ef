import numpy as np
import pytest
import tensorflow as tf

from training import augment

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 20, 3), "uint8")


def affine(seed, rotate=0.0, zoom=0.0, shift=0.0, image=IMAGE):
    return augment.random_affine(tf.constant(image), tf.constant(seed), rotate, zoom, shift).numpy()


def test_no_change_is_no_change():
    result = affine((1, 2))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, IMAGE, atol=1e-3)


def test_the_same_seed_gives_the_same_image_eagerly_and_in_a_pipeline():
    arguments = {"rotate": 20.0, "zoom": 0.2, "shift": 0.1}
    eager = affine((1, 2), **arguments)
    ds = tf.data.Dataset.from_tensors(IMAGE).map(lambda x: augment.random_affine(x, tf.constant((1, 2)), **arguments))
    np.testing.assert_array_equal(next(iter(ds)).numpy(), eager)
    assert np.abs(affine((1, 3), **arguments) - eager).max() > 10


def test_shift_moves_at_most_its_share():
    dot = np.zeros((21, 21, 1), "uint8")
    dot[10, 10] = 255
    offsets = []
    for seed in range(200):
        result = affine((0, seed), shift=0.2, image=dot)[..., 0]
        rows, columns = np.indices(result.shape)
        offsets.append([(result * rows).sum() / result.sum() - 10, (result * columns).sum() / result.sum() - 10])
    offsets = np.array(offsets)
    assert np.abs(offsets).max() <= 0.2 * 21 + 1e-3
    assert np.abs(offsets).max() > 0.9 * 0.2 * 21
    assert np.abs(offsets.mean(axis=0)).max() < 0.5


def test_rotation_turns_about_the_centre_by_at_most_its_angle():
    dot = np.zeros((41, 41, 1), "uint8")
    dot[20, 36] = 255  # 16 right of the centre
    angles = []
    for seed in range(100):
        result = affine((0, seed), rotate=30.0, image=dot)[..., 0]
        row, column = np.unravel_index(result.argmax(), result.shape)
        assert np.hypot(row - 20, column - 20) == pytest.approx(16, abs=1)
        angles.append(np.degrees(np.arctan2(row - 20, column - 20)))
    assert max(np.abs(angles)) <= 33
    assert min(angles) < -20
    assert max(angles) > 20


def test_zoom_keeps_the_centre_and_scales():
    dot = np.zeros((41, 41, 1), "uint8")
    dot[20, 30] = 255
    columns = [affine((0, seed), zoom=0.2, image=dot)[20, :, 0].argmax() for seed in range(100)]
    assert min(columns) >= 20 + 10 * 0.8 - 1
    assert max(columns) <= 20 + 10 * 1.2 + 1
    assert max(columns) - min(columns) >= 3


def test_half_of_the_images_are_mirrored():
    flipped = 0
    for seed in range(400):
        result = augment.random_flip(tf.constant(IMAGE), tf.constant((7, seed))).numpy()
        mirrored = np.array_equal(result, IMAGE[:, ::-1])
        assert mirrored or np.array_equal(result, IMAGE)
        flipped += mirrored
    assert 160 <= flipped <= 240  # 4 standard deviations

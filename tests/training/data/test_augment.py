import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from tests.helpers.images import encode
from training.data import augment

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 20, 3), "uint8")
SEEDS = tf.stack([tf.zeros(3000, tf.int32), tf.range(3000)], axis=1)
ALPHA = 1e-3  # seeds are fixed: a test passes always or never


def for_each_seed(function, count=3000):
    """The results of `function` for each seed, computed in one graph."""
    return np.stack(list(tf.data.Dataset.from_tensor_slices(SEEDS[:count]).map(function).as_numpy_iterator()))


def assert_uniform(values, low, high, bins=12):
    counts, _ = np.histogram(values, bins=bins, range=(low, high))
    assert counts.sum() == len(values)
    assert stats.chisquare(counts).pvalue > ALPHA


# The crop


def test_crops_are_uniform_in_area_log_uniform_in_ratio_and_anywhere():
    # Half of a square always leaves room for a ratio of 4/3, so that every draw is accepted.
    windows = for_each_seed(lambda seed: augment.inception_crop(tf.constant([4000, 4000]), seed, area=(0.08, 0.5)))
    top, left, height, width = windows.T.astype(float)
    assert_uniform(height * width / 4000**2, 0.0799, 0.5001)
    assert_uniform(np.log(width / height), np.log(0.7499), np.log(1.3338))
    down, right = top / (4000 - height), left / (4000 - width)
    assert_uniform(down, 0, 1)
    assert_uniform(right, 0, 1)
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.06


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (64, 64), (9, 13), (3, 3), (1, 1), (1, 1000), (700, 2)])
def test_crops_lie_inside_and_keep_their_bounds(shape):
    windows = for_each_seed(lambda seed: augment.inception_crop(tf.constant(shape), seed), 500)
    top, left, height, width = windows.T
    assert min(top.min(), left.min()) >= 0
    assert min(height.min(), width.min()) >= 1
    assert (top + height).max() <= shape[0]
    assert (left + width).max() <= shape[1]
    if min(shape) > 300:
        fraction = height * width / (shape[0] * shape[1])
        assert fraction.min() >= 0.078
        assert fraction.max() > 0.9
        assert (width / height).min() >= 0.74
        assert (width / height).max() <= 1.35


def test_where_no_crop_fits_the_center_is_taken():
    windows = for_each_seed(lambda seed: augment.inception_crop(tf.constant([30, 1000]), seed), 20)
    assert {tuple(w) for w in windows} == {(0, 480, 30, 40)}
    windows = for_each_seed(lambda seed: augment.inception_crop(tf.constant([1000, 30]), seed), 20)
    assert {tuple(w) for w in windows} == {(480, 0, 40, 30)}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_the_decoded_window_is_that_part_of_the_image(kind):
    smooth = np.add.outer(np.arange(120), np.arange(160))[..., None] * [0.3, 0.6, 0.9]
    data = encode(Image.fromarray(smooth.astype("uint8")), kind, **({"quality": 95} if kind == "JPEG" else {}))
    whole = tf.io.decode_image(data, channels=3).numpy().astype(int)
    for seed in SEEDS[:20]:
        top, left, height, width = augment.inception_crop(tf.constant(whole.shape), seed).numpy()
        window = augment.decode_window(data, seed).numpy().astype(int)
        expected = whole[top : top + height, left : left + width]
        assert window.shape == expected.shape
        # JPEG: the fast transform, and no smoothing of the chroma.
        assert np.abs(window - expected).max() <= (16 if kind == "JPEG" else 0)
        assert np.abs(window - expected).mean() <= (2 if kind == "JPEG" else 0)


# Resizing


def test_four_interpolations_are_equally_likely():
    variants = [
        tf.clip_by_value(tf.cast(tf.image.resize(IMAGE, (9, 9), m), tf.float32), 0, 255) for m in augment.INTERPOLATIONS
    ]

    def which(seed):
        resized = augment.random_resize(tf.constant(IMAGE), seed, 9)
        return tf.stack([tf.reduce_all(tf.abs(resized - variant) < 1e-3) for variant in variants])

    hits = for_each_seed(which)
    assert (hits.sum(axis=1) == 1).all()
    assert stats.chisquare(hits.sum(axis=0)).pvalue > ALPHA


# Colors


def reference_steps(seed):
    """The four distortions of a seed, each a function of a float64 image."""
    draws, _ = tf.unstack(tf.random.split(seed, 2))
    b, c, s, h = tf.random.stateless_uniform((4,), draws).numpy().astype("float64")
    yiq = augment.TO_YIQ.astype("float64")
    angle = 2 * np.pi * (2 * h - 1) * 0.2
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return [
        lambda x: x + (2 * b - 1) * 32,
        lambda x: x.mean(axis=(0, 1)) + (x - x.mean(axis=(0, 1))) * (0.5 + c),
        lambda x: (x @ yiq[0])[..., None] + (x - (x @ yiq[0])[..., None]) * (0.5 + s),
        lambda x: x @ (np.linalg.inv(yiq) @ rotation @ yiq).T,
    ]


def test_photometric_distortions_equal_the_four_steps_in_every_order():
    image = (100 + np.random.default_rng(0).uniform(0, 30, (8, 9, 3))).astype("float32")  # far from clipping
    for seed in SEEDS[:5]:
        result = augment.photometric(tf.constant(image), seed, lighting=0.0).numpy()
        for order in itertools.permutations(reference_steps(seed)):
            expected = image.astype("float64")
            for step in order:
                expected = step(expected)
            np.testing.assert_allclose(result, expected, atol=0.05)


def test_photometric_amounts_are_uniform():
    black_and_white = np.zeros((4, 4, 1), "float32") + 127.5
    black_and_white[:2] += 40
    black_and_white[2:] -= 40
    results = for_each_seed(lambda seed: augment.photometric(tf.constant(black_and_white), seed))
    assert_uniform(results.mean(axis=(1, 2, 3)) - 127.5, -32.001, 32.001)
    assert_uniform((results.max(axis=(1, 2, 3)) - results.min(axis=(1, 2, 3))) / 80, 0.4999, 1.5001)


def test_lighting_follows_the_principal_components():
    gray = tf.fill((2, 2, 3), 127.5)
    lit = for_each_seed(lambda s: augment.photometric(gray, s, 0.1) - augment.photometric(gray, s, 0.0))[:, 0, 0]
    mixture = lit / 255 @ np.array(augment.PCA_VECTORS) / np.array(augment.PCA_VALUES) / 0.1
    for component in mixture.T:
        assert stats.kstest(component, "norm").pvalue > ALPHA
    assert np.abs(np.corrcoef(mixture.T) - np.eye(3)).max() < 0.06


def test_colors_stay_in_range_and_gray_stays_gray():
    harsh = np.random.default_rng(0).choice([0.0, 255.0], (6, 6, 3)).astype("float32")
    gray = np.repeat(harsh[..., :1], 3, axis=-1)
    for seed in SEEDS[:50]:
        result = augment.photometric(tf.constant(harsh), seed).numpy()
        assert result.min() >= 0
        assert result.max() <= 255
        result = augment.photometric(tf.constant(gray), seed, lighting=0.0).numpy()
        np.testing.assert_allclose(result, result[..., :1].repeat(3, axis=-1), atol=0.3)


# The whole augmentation


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(60, 80, 3), (1, 200, 3), (3, 2, 3)])
def test_the_paper_augmentation_is_the_same_eagerly_and_in_a_pipeline(channels, shape):
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, "uint8")), "PNG")
    in_pipeline = for_each_seed(lambda seed: augment.paper(data, seed, 24, channels), 10)
    assert in_pipeline.shape == (10, 24, 24, channels)
    assert in_pipeline.dtype == np.float32
    for seed, image in zip(SEEDS, in_pipeline):
        np.testing.assert_allclose(augment.paper(tf.constant(data), seed, 24, channels), image, atol=1e-3)
    assert len({image.tobytes() for image in in_pipeline}) == 10


def affine(seed, rotate=0.0, zoom=0.0, shift=0.0, image=IMAGE):
    return augment.random_affine(tf.constant(image), tf.constant(seed), rotate, zoom, shift).numpy()


def test_an_affine_map_without_change_keeps_the_image():
    result = affine((1, 2))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, IMAGE, atol=1e-3)


def test_the_same_seed_gives_the_same_image_eagerly_and_in_a_pipeline():
    arguments = {"rotate": 20.0, "zoom": 0.2, "shift": 0.1}
    eager = affine((1, 2), **arguments)
    ds = tf.data.Dataset.from_tensors(IMAGE).map(lambda x: augment.random_affine(x, tf.constant((1, 2)), **arguments))
    np.testing.assert_array_equal(next(iter(ds)).numpy(), eager)
    assert np.abs(affine((1, 3), **arguments) - eager).max() > 10


def test_shift_moves_at_most_its_fraction():
    dot = np.zeros((21, 21, 1), "uint8")
    dot[10, 10] = 255
    offsets = []
    for seed in range(200):
        result = affine((0, seed), shift=0.2, image=dot)[..., 0]
        assert set(np.unique(result)) == {0, 255}  # shifts are by whole pixels, so nothing blurs
        rows, columns = np.indices(result.shape)
        offsets.append([(result * rows).sum() / result.sum() - 10, (result * columns).sum() / result.sum() - 10])
    offsets = np.array(offsets)
    assert np.abs(offsets).max() <= 0.2 * 21 + 1e-3
    assert np.abs(offsets).max() > 0.9 * 0.2 * 21
    assert np.abs(offsets.mean(axis=0)).max() < 0.5


def test_rotation_is_about_the_center_by_at_most_its_angle():
    dot = np.zeros((41, 41, 1), "uint8")
    dot[20, 36] = 255  # 16 pixels right of the center
    angles = []
    for seed in range(100):
        result = affine((0, seed), rotate=30.0, image=dot)[..., 0]
        row, column = np.unravel_index(result.argmax(), result.shape)
        assert np.hypot(row - 20, column - 20) == pytest.approx(16, abs=1)
        angles.append(np.degrees(np.arctan2(row - 20, column - 20)))
    assert max(np.abs(angles)) <= 33
    assert min(angles) < -20
    assert max(angles) > 20


def test_zoom_keeps_the_center_and_scales():
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


def test_erasing_fills_a_rectangle_in_its_fraction_of_the_images():
    image = tf.fill((40, 60, 3), -1.0)  # noise is never negative
    erase = tf.function(lambda seed: augment.random_erase(image, seed, 0.25))
    erased, areas = 0, []
    for number in range(400):
        changed = (erase(tf.constant([5, number])).numpy() >= 0).all(axis=-1)
        if not changed.any():
            continue
        erased += 1
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = np.zeros((40, 60), bool)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        np.testing.assert_array_equal(changed, box)
        areas.append(box.mean())
    assert stats.binomtest(erased, 400, 0.25).pvalue > 0.01
    assert 0.015 < min(areas) < 0.06
    assert 0.28 < max(areas) < 0.34


def test_mixup_blends_images_and_labels_by_the_same_weight():
    random = np.random.default_rng(0)
    images, labels = random.normal(size=(6, 8, 8, 3)).astype("float32"), np.eye(6, dtype="float32")
    weights = []
    for number in range(300):
        mixed, soft = augment.mixup(tf.constant(images), tf.constant(labels), tf.constant([1, number]), 0.4)
        weight = float(soft[0, 0])
        np.testing.assert_allclose(soft, weight * labels + (1 - weight) * labels[::-1], atol=1e-6)
        np.testing.assert_allclose(mixed, weight * images + (1 - weight) * images[::-1], atol=1e-5)
        weights.append(weight)
    assert stats.kstest(weights, stats.beta(0.4, 0.4).cdf).pvalue > 0.01


def test_cutmix_labels_follow_the_pasted_area():
    images = tf.range(4.0)[:, None, None, None] + tf.zeros((4, 20, 30, 1))
    kept = []
    for number in range(200):
        mixed, soft = augment.cutmix(images, tf.eye(4), tf.constant([2, number]), 1.0)
        own = (mixed.numpy() == images.numpy()).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(np.diag(soft), own, atol=1e-6)
        np.testing.assert_allclose(np.diag(soft.numpy()[:, ::-1]), 1 - own, atol=1e-6)
        assert set(np.unique(mixed.numpy()[0])) <= {0.0, 3.0}
        kept.append(own[0])
    assert min(kept) < 0.15
    assert max(kept) > 0.98

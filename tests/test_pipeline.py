import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inception_v1.preprocessing import normalize
from training import augment, pipeline, sources
from training.recipe import PRESETS, Recipe

from .test_sources import make_folder


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_decodes_to_its_centre_square(kind, channels):
    colours = np.zeros((30, 50, 3), "uint8")
    colours[:, 10:40] = (200, 40, 90)  # the centre square; red elsewhere would show
    colours[:, :10], colours[:, 40:] = (255, 0, 0), (255, 0, 0)
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image = pipeline.decode(encoded(Image.fromarray(colours), kind, **options), 24, channels).numpy()
    assert (image.shape, image.dtype) == ((24, 24, channels), np.uint8)
    expected = (200, 40, 90) if channels == 3 else (0.2989 * 200 + 0.587 * 40 + 0.114 * 90,)
    np.testing.assert_allclose(image[4:-4, 4:-4].mean(axis=(0, 1)), expected, atol=3)


def test_grey_survives_unchanged_at_its_own_size():
    grey = np.random.default_rng(0).integers(0, 256, (28, 28), "uint8")
    image = pipeline.decode(encoded(Image.fromarray(grey), "PNG"), 28, 1).numpy()
    np.testing.assert_array_equal(image[..., 0], grey)


def test_animated_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pipeline.decode(data, 20, 3)[10, 10], (255, 0, 0))


@pytest.fixture
def digits(data_dir):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, batch_size=100)
    return recipe, *sources.load(recipe)


def collect(ds):
    images, labels = zip(*ds.as_numpy_iterator())
    return np.concatenate(images), np.concatenate(labels)


def test_evaluation_sees_every_image_once_in_order(digits):
    recipe, builder, splits = digits
    ds = pipeline.batches(builder, splits.test, recipe, training=False)
    images, labels = collect(ds)
    assert images.shape == (360, 32, 32, 1)
    assert labels.shape == (360,)
    pictures = np.stack(list(pipeline.pictures(builder, splits.test, recipe).as_numpy_iterator()))
    np.testing.assert_allclose(images, normalize(pictures, "signed"), atol=1e-6)
    np.testing.assert_array_equal(collect(ds)[1], labels)


def test_training_batches_are_full_and_differ_between_epochs(digits):
    recipe, builder, splits = digits
    ds = pipeline.batches(builder, splits.train, recipe, training=True)
    assert ds.element_spec[0].shape == (100, 32, 32, 1)
    assert ds.cardinality() == 12  # 1,293 images
    first, second = collect(ds), collect(ds)
    assert not np.array_equal(first[1], second[1])
    assert not np.array_equal(np.sort(first[0].sum(axis=(1, 2, 3))), np.sort(second[0].sum(axis=(1, 2, 3))))


def test_the_seed_decides_every_pixel(digits):
    recipe, builder, splits = digits
    runs = []
    for seed in (0, 0, 1):
        ds = pipeline.batches(builder, splits.train, dataclasses.replace(recipe, seed=seed), training=True)
        runs.append([collect(ds) for _ in range(2)])
    for epoch in range(2):
        np.testing.assert_array_equal(runs[0][epoch][0], runs[1][epoch][0])
        np.testing.assert_array_equal(runs[0][epoch][1], runs[1][epoch][1])
    assert not np.array_equal(runs[0][0][0], runs[2][0][0])


@pytest.mark.parametrize("paper", [False, True])
def test_labels_stay_with_their_images(tmp_path, paper):
    """One class is black and the other white, through shuffling, augmentation and batching."""
    for name, shade in (("black", 0), ("white", 255)):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.new("RGB", (40, 40), (shade,) * 3).save(tmp_path / name / f"{i}.png")
    changes = {"paper_augment": True} if paper else {"rotate": 10, "zoom": 0.1, "shift": 0.1, "flip": True}
    recipe = Recipe(source=f"folder:{tmp_path}", image_size=32, batch_size=8, **changes)
    builder, _ = sources.load(recipe)
    images, labels = collect(pipeline.batches(builder, "train", recipe, training=True))
    assert images.shape == (40, 32, 32, 3)
    # The paper's brightness, contrast and light move black and white, but not past each other.
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), labels * 2 - 1, atol=0.6 if paper else 1e-5)


def test_windows_are_those_that_training_crops():
    """A picture whose colours tell where they are, cropped and compared with the window said to be cropped."""
    rows, columns = np.indices((200, 160))
    picture = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype("uint8")
    recipe = Recipe(image_size=32, paper_augment=True)
    for number in range(5):
        seed = tf.constant([3, number])
        top, left, height, width = pipeline.window(tf.constant(picture), seed).numpy()
        crop_seed = augment._paper_seeds(tf.random.split(seed, 3)[0])[0]
        cropped = augment.decode_window(encoded(Image.fromarray(picture), "PNG"), crop_seed).numpy()
        np.testing.assert_array_equal(cropped, picture[top : top + height, left : left + width])
        seen = pipeline.augmented(tf.constant(encoded(Image.fromarray(picture), "PNG")), seed, recipe, 3)
        assert seen.shape == (32, 32, 3)


def test_fewer_images_than_a_batch_still_train(tmp_path):
    recipe = Recipe(source=make_folder(tmp_path), image_size=32, batch_size=64)
    builder, splits = sources.load(recipe)
    ds = pipeline.batches(builder, splits.train, recipe, training=True)
    assert ds.cardinality() == 1
    assert next(iter(ds))[0].shape[0] == sources.size(builder, splits.train)


def test_broken_pictures_raise():
    with pytest.raises(tf.errors.InvalidArgumentError):
        pipeline.decode(b"\xff\xd8\xff not a picture", 32, 3)

"""The `tf.data` chain from a source to batches."""

import functools

import tensorflow as tf
import tensorflow_datasets as tfds

from inception_v1 import VARIANTS
from inception_v1.preprocessing import normalize
from training import augment, sources
from training.recipe import Recipe

CACHE_BYTES = 2**30  # images this small altogether stay decoded in memory


def batches(builder: tfds.core.DatasetBuilder, split: str, recipe: Recipe, training: bool) -> tf.data.Dataset:
    """Batches of one split.

    Args:
        builder: a prepared source.
        split: TFDS split specification.
        recipe: its image size, augmentation, batch size, seed and pixel convention.
        training: whether to shuffle, augment and drop the last partial batch (static shapes train faster).

    Returns:
        Dataset of (images float32 `(batch, size, size, channels)` normalised for the variant, labels int64 `(batch,)`).
        Without `training` in the source's order, every image once.
    """
    count = sources.size(builder, split)
    ds = _decoded(builder, split, recipe, shuffle=training)
    if count * recipe.image_size**2 * image_channels(builder) <= CACHE_BYTES:
        ds = ds.cache()  # decoded and resized, before anything random
    if training:
        ds = ds.shuffle(min(count, 10_000), seed=recipe.seed)
        ds = tf.data.Dataset.zip(ds, _seeds(recipe.seed))
        ds = ds.map(functools.partial(_augment, recipe=recipe), tf.data.AUTOTUNE)
    ds = ds.batch(min(recipe.batch_size, count), drop_remainder=training)
    ds = ds.map(lambda image, label: (normalize(image, VARIANTS[recipe.variant].pixels), label), tf.data.AUTOTUNE)
    return ds.prefetch(tf.data.AUTOTUNE)


def pictures(builder: tfds.core.DatasetBuilder, split: str, recipe: Recipe) -> tf.data.Dataset:
    """The pictures of a split as a person would look at them: uint8 `(size, size, channels)`, in the source's order."""
    return _decoded(builder, split, recipe, shuffle=False).map(lambda image, label: image)


def image_channels(builder: tfds.core.DatasetBuilder) -> int:
    """1 for a source of grey images, else 3."""
    return 1 if builder.info.features["image"].shape[-1] == 1 else 3


def decode(encoded: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF (first frame), BMP or WebP picture and resizes its centre square.

    Args:
        encoded: scalar string.
        size: height and width of the result, pixels.
        channels: 1 (grey) or 3.

    Returns:
        uint8 `(size, size, channels)`.
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = centre_square(image)
    if channels == 1:
        image = tf.image.rgb_to_grayscale(tf.cast(image, tf.float32))
    # Enlarging interpolates smoothly; reducing averages over what each pixel covers.
    image = tf.image.resize(image, (size, size), "bicubic", antialias=True)
    image = tf.saturate_cast(tf.round(image), tf.uint8)
    return tf.ensure_shape(image, (size, size, channels))


def centre_square(image: tf.Tensor) -> tf.Tensor:
    """The largest centred square of `(height, width, channels)`."""
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def _decoded(builder, split, recipe: Recipe, shuffle: bool) -> tf.data.Dataset:
    ds = builder.as_dataset(
        split,
        decoders={"image": tfds.decode.SkipDecoding()},
        shuffle_files=shuffle,
        read_config=tfds.ReadConfig(shuffle_seed=recipe.seed, try_autocache=False),
    )
    channels = image_channels(builder)
    return ds.map(lambda e: (decode(e["image"], recipe.image_size, channels), e["label"]), tf.data.AUTOTUNE)


def _seeds(seed: int) -> tf.data.Dataset:
    """A fresh pair of integers for each image of each epoch."""
    return tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2, drop_remainder=True)


def _augment(example, seed, recipe: Recipe):
    image, label = example
    shape = image.shape
    if recipe.rotate or recipe.zoom or recipe.shift:
        image = augment.random_affine(image, seed, recipe.rotate, recipe.zoom, recipe.shift)
    if recipe.flip:
        image = augment.random_flip(image, seed + 1)  # another draw than the affine's
    return tf.ensure_shape(image, shape), label

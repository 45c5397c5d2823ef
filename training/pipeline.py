"""The `tf.data` chain from a source to batches."""

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
    count, channels = sources.size(builder, split), image_channels(builder)
    whole_pictures = training and recipe.paper_augment  # each epoch decodes another part of them
    ds = (encoded_pictures if whole_pictures else _decoded)(builder, split, recipe, shuffle=training)
    if not whole_pictures and count * recipe.image_size**2 * channels <= CACHE_BYTES:
        ds = ds.cache()  # decoded and resized, before anything random
    if training:
        ds = ds.shuffle(min(count, 10_000), seed=recipe.seed)
        ds = tf.data.Dataset.zip(ds, _seeds(recipe.seed))
        ds = ds.map(lambda example, seed: (augmented(example[0], seed, recipe, channels), example[1]), tf.data.AUTOTUNE)
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
    image = resize(centre_square(decode_whole(encoded, channels)), (size, size))
    image = tf.saturate_cast(tf.round(image), tf.uint8)
    return tf.ensure_shape(image, (size, size, channels))


def decode_whole(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """A picture as `decode` reads it, at its own size: float32 `(height, width, channels)` on the 0-255 scale."""
    image = tf.cast(tf.io.decode_image(encoded, channels=3, expand_animations=False), tf.float32)
    # Rounded, since the weights of red, green and blue add up to 0.9999: a grey picture keeps its values.
    return tf.round(tf.image.rgb_to_grayscale(image)) if channels == 1 else image


def resize(image: tf.Tensor, shape: tuple[int, int] | tf.Tensor) -> tf.Tensor:
    """The resizing of every evaluation: bicubic, and reducing averages over what each pixel covers. float32."""
    return tf.image.resize(image, shape, "bicubic", antialias=True)


def centre_square(image: tf.Tensor) -> tf.Tensor:
    """The largest centred square of `(height, width, channels)`."""
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def augmented(image: tf.Tensor, seed: tf.Tensor, recipe: Recipe, channels: int) -> tf.Tensor:
    """What training makes of one picture.

    Args:
        image: with the paper's augmentation the encoded picture, a scalar string; else uint8 `(size, size, channels)`.
        seed: `(2,)` integers that decide every draw.
        recipe: which changes, and how large.
        channels: 1 (grey) or 3.

    Returns:
        `(size, size, channels)` on the 0-255 scale.
    """
    paper, affine, flip = tf.unstack(tf.random.split(seed, 3))
    if recipe.paper_augment:
        image = augment.paper(image, paper, recipe.image_size, channels)
    if recipe.rotate or recipe.zoom or recipe.shift:
        image = augment.random_affine(image, affine, recipe.rotate, recipe.zoom, recipe.shift)
    if recipe.flip:
        image = augment.random_flip(image, flip)
    return tf.ensure_shape(image, (recipe.image_size, recipe.image_size, channels))


def window(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The window of a decoded picture that `augmented` crops with this seed under the paper's augmentation."""
    return augment.paper_window(tf.shape(image), tf.random.split(seed, 3)[0])


def encoded_pictures(
    builder: tfds.core.DatasetBuilder, split: str, recipe: Recipe, shuffle: bool = False
) -> tf.data.Dataset:
    """(encoded picture, label) of a split, in the source's order or with its files shuffled."""
    ds = builder.as_dataset(
        split,
        decoders={"image": tfds.decode.SkipDecoding()},
        shuffle_files=shuffle,
        read_config=tfds.ReadConfig(shuffle_seed=recipe.seed, try_autocache=False),
    )
    return ds.map(lambda e: (e["image"], e["label"]))


def _decoded(builder, split, recipe: Recipe, shuffle: bool) -> tf.data.Dataset:
    size, channels = recipe.image_size, image_channels(builder)
    ds = encoded_pictures(builder, split, recipe, shuffle)
    return ds.map(lambda picture, label: (decode(picture, size, channels), label), tf.data.AUTOTUNE)


def _seeds(seed: int) -> tf.data.Dataset:
    """A fresh pair of integers for each image of each epoch."""
    return tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2, drop_remainder=True)

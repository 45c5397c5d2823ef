"""The `tf.data` chain from a source to batches.

Training keeps no state: the n-th picture of epoch e, and all that is drawn for it, follow from the recipe's seed, e and
n. So a run that goes on after epoch e, one with other threads and one fed by other machines train on the same pixels.
"""

import os
import typing
from collections.abc import Callable, Collection

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from inception_v1 import VARIANTS
from inception_v1.preprocessing import normalize
from training.data import augment, sources
from training.data.decoding import bounded, decode, decode_pixels
from training.recipe import Recipe

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CACHE_BYTES = 2**30  # pictures that are smaller than this altogether stay in memory
PREFETCH = 2  # batches that are ready beside the one in use
SHUFFLE_BUFFER = 10_000  # pictures, where a dataset is read file by file


class Share(typing.NamedTuple):
    """Which pieces of each step's images this process trains on, and which part of a split it evaluates.

    Attributes:
        first: number of its first piece.
        count: of its pieces; the dataset gives each as a batch of its own.
        of: pieces in a step.
    """

    first: int = 0
    count: int = 1
    of: int = 1


WHOLE = Share()


@tf.autograph.experimental.do_not_convert
def batches(
    builder: tfds.core.DatasetBuilder,
    split: str,
    recipe: Recipe,
    training: bool,
    *,
    skip: Collection[str] = (),
    first_epoch: int = 0,
    share: Share = WHOLE,
    service: str | None = None,
) -> tf.data.Dataset:
    """Batches of one split.

    Args:
        builder: a prepared source.
        split: TFDS split specification.
        recipe: its image size, augmentation, batch size, epochs, seed and pixel convention.
        training: whether to shuffle, augment and leave out the last partial batch (static shapes train faster), all
            epochs of the recipe one after the other. Else every picture once, in the source's order.
        skip: names of pictures to leave out, as `unreadable` gives them.
        first_epoch: of training, from 0.
        share: of several processes' work. Together they train on the images of one process in its order, a step at a
            time, and evaluate each image once. Mixing stays within a piece.
        service: address of a `tf.data` service ("grpc://HOST:PORT") whose workers run the chain. Each batch is made
            once; they arrive in any order.

    Returns:
        Dataset of (images float32 `(batch, size, size, channels)` normalised for the variant, labels): int64
        `(batch,)`, or float32 `(batch, classes)` where training mixes images. `batch` is the recipe's; in training over
        `share.of`.

    Raises:
        ValueError: fewer training images than pieces in a step.
    """
    pixels = pixel_convention(recipe)
    if not training:
        ds = _decoded(builder, split, recipe, skip, share)
        if _decoded_bytes(builder, split, recipe) <= CACHE_BYTES:
            ds = ds.cache()
        ds = ds.batch(recipe.batch_size)
        return ds.map(lambda image, label: (normalize(image, pixels), label), PREFETCH).prefetch(1)

    channels, classes = image_channels(builder), len(sources.class_names(builder))
    cores = tf.data.AUTOTUNE if service else CORES  # those of the workers
    steps = steps_per_epoch(builder, split, recipe, skip, share.of)
    batch = _batch_size(builder, split, recipe, skip, share.of)
    ds = _examples(builder, split, recipe, skip, first_epoch, share, cores)
    ds = ds.map(lambda image, label, seed: (augmented(image, seed, recipe, channels), label, seed), cores)
    ds = ds.batch(batch // share.of, drop_remainder=True)
    if recipe.mixup or recipe.cutmix:
        ds = ds.map(lambda image, label, seed: (*mixed(image, tf.one_hot(label, classes), seed[0], recipe), seed))
    ds = ds.map(lambda image, label, seed: (normalize(image, pixels), label), PREFETCH)
    if service:
        policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        ds = ds.apply(tf.data.experimental.service.distribute(policy, service))
    ds = ds.apply(tf.data.experimental.assert_cardinality(share.count * steps * (recipe.epochs - first_epoch)))
    ds = ds.prefetch(PREFETCH)
    return ds if service else sources.untuned(ds)


def pixel_convention(recipe: Recipe) -> str:
    """How the network of a recipe takes its pixels, a key of `spec.PIXELS`."""
    return recipe.pixels or VARIANTS[recipe.variant].pixels


def steps_per_epoch(builder, split: str, recipe: Recipe, skip: Collection[str] = (), pieces: int = 1) -> int:
    """Batches of training in an epoch, each of so many equal pieces."""
    return (sources.size(builder, split) - len(skip)) // _batch_size(builder, split, recipe, skip, pieces)


def _batch_size(builder, split, recipe, skip, pieces) -> int:
    images = sources.size(builder, split) - len(skip)
    if images < pieces:
        raise ValueError(f"Expected an image for each of {pieces} replicas; Received: {images} in {split!r}.")
    return min(recipe.batch_size, images) // pieces * pieces


@tf.autograph.experimental.do_not_convert
def pictures(builder, split: str, recipe: Recipe, skip: Collection[str] = ()) -> tf.data.Dataset:
    """The pictures of a split as a person would look at them: uint8 `(size, size, channels)`, in the source's order."""
    return _decoded(builder, split, recipe, skip).map(lambda image, label: image)


def encoded_pictures(builder, split: str, skip: Collection[str] = ()) -> tf.data.Dataset:
    """(encoded picture, label) of a split, in the source's order."""
    return _named(builder, split, skip).map(lambda name, encoded, label: (encoded, label))


@tf.autograph.experimental.do_not_convert
def unreadable(builder, split: str) -> list[str]:
    """Names of the pictures of a split that cannot be decoded, or only with too much memory.

    Decodes every one once, JPEGs at an eighth of their size.
    """

    def probe(name, encoded, label):
        whole = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: tf.io.decode_jpeg(bounded(encoded), channels=3, ratio=8),
            lambda: decode_pixels(encoded),
        )
        return tf.where(tf.size(whole) > 0, name, b"")  # a use of the pixels: unused, they would not be decoded

    readable = _named(builder, split).map(probe, CORES).ignore_errors().batch(1024)
    good = {name for names in readable.as_numpy_iterator() for name in names}
    if len(good) == sources.size(builder, split):
        return []
    return [name.decode() for name in sources.names(builder, split).as_numpy_iterator() if name not in good]


def image_channels(builder: tfds.core.DatasetBuilder) -> int:
    """1 for a source of grey images, else 3."""
    return 1 if builder.info.features["image"].shape[-1] == 1 else 3


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
    paper, affine, flip, erase = tf.unstack(tf.random.split(seed, 4))
    if recipe.paper_augment:
        image = augment.paper(image, paper, recipe.image_size, channels)
    if recipe.rotate or recipe.zoom or recipe.shift:
        image = augment.random_affine(image, affine, recipe.rotate, recipe.zoom, recipe.shift)
    if recipe.flip:
        image = augment.random_flip(image, flip)
    if recipe.erase:
        image = augment.random_erase(image, erase, recipe.erase)
    return tf.ensure_shape(image, (recipe.image_size, recipe.image_size, channels))


def mixed(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, recipe: Recipe) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch after mixup or CutMix; where the recipe has both, each batch gets one of them, half and half.

    Args:
        images: `(batch, size, size, channels)`.
        labels: float32 `(batch, classes)`.
        seed: `(2,)` integers that decide every draw.
        recipe: how strongly.
    """
    choice, draws = tf.unstack(tf.random.split(tf.random.fold_in(seed, 1), 2))

    def mixup():
        return augment.mixup(images, labels, draws, recipe.mixup)

    def cutmix():
        return augment.cutmix(images, labels, draws, recipe.cutmix)

    if recipe.mixup and recipe.cutmix:
        return tf.cond(tf.random.stateless_uniform((), choice) < 0.5, mixup, cutmix)
    return mixup() if recipe.mixup else cutmix()


def window(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The window of a decoded picture that `augmented` crops with this seed under the paper's augmentation."""
    return augment.paper_window(tf.shape(image), tf.random.split(seed, 4)[0])


def _examples(builder, split, recipe: Recipe, skip, first_epoch: int, share: Share, cores: int) -> tf.data.Dataset:
    """(what `augmented` takes, label, seed) of all epochs."""
    batch = _batch_size(builder, split, recipe, skip, share.of)
    steps = steps_per_epoch(builder, split, recipe, skip, share.of)
    start, end = (piece * (batch // share.of) for piece in (share.first, share.first + share.count))  # in a batch
    by_index = _by_index(builder, split, recipe, skip)
    if by_index is None:

        def read(epoch):
            ds = _in_order(builder, split, skip, recipe, epoch).take(steps * batch)
            if share.count < share.of:  # before anything is decoded
                ds = ds.enumerate().filter(lambda number, _: (start <= number % batch) & (number % batch < end))
                ds = ds.map(lambda _, picture: picture)
            return _read_in_order(ds, builder, recipe, epoch, cores)

        return tf.data.Dataset.range(first_epoch, recipe.epochs).flat_map(read)
    count = sources.size(builder, split) - len(skip)

    def example(number):  # of all that training sees
        epoch = number // (steps * batch)
        order = tf.stack([recipe.seed, epoch])
        index = tf.random.experimental.index_shuffle(number % (steps * batch), order, count - 1)
        return (*by_index(index), _seed(recipe, epoch, index))

    # By steps, so that a `tf.data` service hands out whole batches.
    ds = tf.data.Dataset.range(first_epoch * steps, recipe.epochs * steps)
    ds = ds.flat_map(lambda step: tf.data.Dataset.range(step * batch + start, step * batch + end))
    return ds.map(example, cores)


def _by_index(builder, split, recipe: Recipe, skip) -> Callable | None:
    """Maps an index to (what `augmented` takes, label), where memory or single files allow that."""
    size, channels = recipe.image_size, image_channels(builder)
    if not recipe.paper_augment and _decoded_bytes(builder, split, recipe) <= CACHE_BYTES:
        decoded = list(_decoded(builder, split, recipe, skip).batch(1024).as_numpy_iterator())
        images, labels = (tf.constant(np.concatenate(column)) for column in zip(*decoded, strict=True))
        return lambda index: (images[index], labels[index])
    if isinstance(builder, sources.PictureFolder):
        out = set(skip)
        paths, labels = zip(*(file for file in builder.pictures(split) if file[0] not in out), strict=True)
        paths, labels = tf.constant(paths), tf.constant(labels, tf.int64)

        def fetch(index):
            return tf.io.read_file(paths[index])
    elif sources.encoded_bytes(builder, split) <= CACHE_BYTES:
        encoded, labels = zip(*encoded_pictures(builder, split, skip).as_numpy_iterator(), strict=True)
        encoded, labels = tf.constant(encoded), tf.constant(labels, tf.int64)

        def fetch(index):
            return encoded[index]
    else:
        return None

    def read(index):
        picture = fetch(index)
        return picture if recipe.paper_augment else decode(picture, size, channels), labels[index]

    return read


def _in_order(builder, split, skip, recipe: Recipe, epoch) -> tf.data.Dataset:
    """(name, encoded picture, label) of one epoch, from files in an order of its own through a buffer."""
    order = recipe.seed * 2**32 + epoch
    tf.random.set_seed(1)  # of the function being traced, so that `order` alone decides
    return _named(builder, split, skip, order).shuffle(SHUFFLE_BUFFER, order)


def _read_in_order(ds: tf.data.Dataset, builder, recipe: Recipe, epoch, cores) -> tf.data.Dataset:
    """(what `augmented` takes, label, seed) of what `_in_order` gives."""
    size, channels = recipe.image_size, image_channels(builder)

    def example(name, encoded, label):
        number = tf.strings.to_hash_bucket_fast(name, 2**62)
        return encoded if recipe.paper_augment else decode(encoded, size, channels), label, _seed(recipe, epoch, number)

    return ds.map(example, cores)


def _seed(recipe: Recipe, epoch, number):
    """Of all draws for one picture in one epoch: int64 `(2,)`."""
    return tf.stack([recipe.seed * 2**32 + epoch, number])


def _named(builder, split, skip: Collection[str] = (), order=None) -> tf.data.Dataset:
    """What `sources.encoded_pictures` gives, without the pictures of the names in `skip`."""
    ds = sources.encoded_pictures(builder, split, order)
    if skip:
        out = tf.constant(sorted(skip))
        ds = ds.filter(lambda name, encoded, label: ~tf.reduce_any(name == out))
        ds = ds.apply(tf.data.experimental.assert_cardinality(sources.size(builder, split) - len(skip)))
    return ds


def _decoded(builder, split, recipe: Recipe, skip, share: Share = WHOLE) -> tf.data.Dataset:
    size, channels = recipe.image_size, image_channels(builder)
    ds = encoded_pictures(builder, split, skip)
    if share.count < share.of:  # a part of the split, as large as the share
        images = sources.size(builder, split) - len(skip)
        start, end = (images * piece // share.of for piece in (share.first, share.first + share.count))
        ds = ds.skip(start).take(end - start)
    return ds.map(lambda picture, label: (decode(picture, size, channels), label), CORES)


def _decoded_bytes(builder, split, recipe: Recipe) -> int:
    return sources.size(builder, split) * recipe.image_size**2 * image_channels(builder)

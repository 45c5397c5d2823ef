"""The `tf.data` chain from a split to batches.

Training keeps no state: the n-th image of epoch e, and all that is drawn for it, follow from the recipe's seed, e and
n. So a run that resumes at any step, one with other threads and one fed by other machines train on the same pixels.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from inception_v1.preprocessing import normalize
from inception_v1.spec import VARIANTS
from training.data import augment
from training.data.decoding import decode
from training.data.split import Split
from training.data.threads import CORES, without_autotuning
from training.errors import UserError
from training.recipe import Recipe

CACHE_BYTES = 2**30  # a split whose images take less than this altogether stays in memory
PREFETCH = 2  # batches that are ready beside the one in use
SHUFFLE_BUFFER = 10_000  # images, where a dataset is read file by file


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which per-replica batches of each step this process trains on, and which part of a split it evaluates.

    Attributes:
        first: number of its first per-replica batch.
        count: of its per-replica batches; the dataset gives each as a batch of its own.
        of: per-replica batches in a step.
    """

    first: int = 0
    count: int = 1
    of: int = 1


WHOLE = Shard()


@dataclasses.dataclass(frozen=True, order=True)
class Position:
    """A place in the order of a run's steps.

    Attributes:
        epoch: whole epochs before it.
        step: steps of the epoch before it; all of them where the epoch is trained, but not yet evaluated.
    """

    epoch: int = 0
    step: int = 0


START = Position()


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches of a split, as a recipe asks for them.

    Attributes:
        split: to take the images from.
        recipe: its image size, augmentation, batch size (of a whole step), epochs, seed and pixel convention.
    """

    split: Split
    recipe: Recipe

    def batch_size(self, replicas: int = 1) -> int:
        """Images of a training step, the same number for each replica.

        Raises:
            UserError: fewer images than replicas.
        """
        if self.split.size < replicas:
            raise UserError(
                f"Expected an image for each of {replicas} replicas; Received: {self.split.size} in "
                f"{self.split.name!r}."
            )
        return min(self.recipe.batch_size, self.split.size) // replicas * replicas

    def steps_per_epoch(self, replicas: int = 1) -> int:
        """Training steps in an epoch. Raises UserError as `batch_size`."""
        return self.split.size // self.batch_size(replicas)

    @tf.autograph.experimental.do_not_convert
    def training(self, start: Position = START, shard: Shard = WHOLE, service: str | None = None) -> tf.data.Dataset:
        """Shuffled, augmented batches of all epochs of the recipe, without each epoch's last partial one.

        Args:
            start: of the first batch.
            shard: of several processes' work. Together they train on the images of one process in its order, a step at
                a time. Mixing stays within a per-replica batch.
            service: address of a `tf.data` service ("grpc://HOST:PORT") whose workers run the chain. Each batch is made
                once; they arrive in any order.

        Returns:
            Dataset of (images float32 `(batch, size, size, channels)`, normalized for the variant; labels int64
            `(batch,)`, or float32 `(batch, classes)` where the recipe mixes images). `batch` is `batch_size(shard.of)`
            over `shard.of`, a static shape, with which training is faster.

        Raises:
            UserError: fewer images than per-replica batches in a step.
        """
        recipe, pixels = self.recipe, pixel_convention(self.recipe)
        channels, classes = self.split.channels, len(self.split.classes)
        cores = tf.data.AUTOTUNE if service else CORES  # those of the workers
        total = shard.count * (self.steps_per_epoch(shard.of) * (recipe.epochs - start.epoch) - start.step)
        ds = self._training_examples(start, shard, cores)
        ds = ds.map(lambda image, label, seed: (augment_image(image, seed, recipe, channels), label, seed), cores)
        ds = ds.batch(self.batch_size(shard.of) // shard.of, drop_remainder=True)
        if recipe.mixup or recipe.cutmix:
            ds = ds.map(
                lambda image, label, seed: (*mix_batch(image, tf.one_hot(label, classes), seed[0], recipe), seed)
            )
        ds = ds.map(lambda image, label, seed: (normalize(image, pixels), label), PREFETCH)
        if service:
            policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
            ds = ds.apply(tf.data.experimental.service.distribute(policy, service))
        ds = ds.apply(tf.data.experimental.assert_cardinality(total)).prefetch(PREFETCH)
        return ds if service else without_autotuning(ds)

    @tf.autograph.experimental.do_not_convert
    def evaluation(self, shard: Shard = WHOLE) -> tf.data.Dataset:
        """Every image once, in the source's order, the last partial batch included.

        Args:
            shard: of several processes' work; together they evaluate each image once.

        Returns:
            Dataset of (images float32 `(batch, size, size, channels)`, normalized for the variant; labels int64
            `(batch,)`).
        """
        pixels = pixel_convention(self.recipe)
        ds = self._decoded(shard)
        if self._decoded_bytes() <= CACHE_BYTES:
            ds = ds.cache()
        ds = ds.batch(self.recipe.batch_size)
        return ds.map(lambda image, label: (normalize(image, pixels), label), PREFETCH).prefetch(1)

    @tf.autograph.experimental.do_not_convert
    def images(self) -> tf.data.Dataset:
        """The images as a person would look at them: uint8 `(size, size, channels)`, in the source's order."""
        return self._decoded().map(lambda image, label: image)

    def _training_examples(self, start: Position, shard: Shard, cores: int) -> tf.data.Dataset:
        """(what `augment_image` takes, label, seed) of all epochs."""
        batch, steps = self.batch_size(shard.of), self.steps_per_epoch(shard.of)
        first, end = (n * (batch // shard.of) for n in (shard.first, shard.first + shard.count))  # in a batch
        by_index = self._by_index()
        if by_index is None:
            epochs = tf.data.Dataset.range(start.epoch, self.recipe.epochs)
            return epochs.flat_map(
                lambda epoch: self._streamed(
                    epoch, tf.where(epoch == start.epoch, start.step, 0), first, end, batch, steps, cores
                )
            )

        def example(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:  # of all that training sees
            epoch = number // (steps * batch)
            order = tf.stack([self.recipe.seed, epoch])
            index = tf.random.experimental.index_shuffle(number % (steps * batch), order, self.split.size - 1)
            return (*by_index(index), self._seed(epoch, index))

        # By steps, so that a `tf.data` service hands out whole batches.
        ds = tf.data.Dataset.range(start.epoch * steps + start.step, self.recipe.epochs * steps)
        ds = ds.flat_map(lambda step: tf.data.Dataset.range(step * batch + first, step * batch + end))
        return ds.map(example, cores)

    def _by_index(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None:
        """Maps an index to (what `augment_image` takes, label), where memory or single files allow that."""
        paper = self.recipe.paper_augment
        if not paper and self._decoded_bytes() <= CACHE_BYTES:
            decoded = list(self._decoded().batch(1024).as_numpy_iterator())
            images, labels = (tf.constant(np.concatenate(column)) for column in zip(*decoded, strict=True))
            return lambda index: (images[index], labels[index])
        if files := self.split.files():
            paths, numbers = zip(*files, strict=True)
            paths, labels = tf.constant(paths), tf.constant(numbers, tf.int64)
            return lambda index: (self._decoded_or_encoded(tf.io.read_file(paths[index])), labels[index])
        if self.split.encoded_bytes <= CACHE_BYTES:
            encoded, numbers = zip(*self.split.encoded_images().as_numpy_iterator(), strict=True)
            encoded, labels = tf.constant(encoded), tf.constant(numbers, tf.int64)
            return lambda index: (self._decoded_or_encoded(encoded[index]), labels[index])
        return None

    def _streamed(
        self, epoch: tf.Tensor, step: tf.Tensor, first: int, end: int, batch: int, steps: int, cores: int
    ) -> tf.data.Dataset:
        """The same of one epoch from a step on, from files in an order of its own through a buffer."""
        order = self.recipe.seed * 2**32 + epoch
        tf.random.set_seed(1)  # of the function being traced, so that `order` alone decides
        ds = self.split.examples(order).shuffle(SHUFFLE_BUFFER, order).take(steps * batch)
        ds = ds.skip(tf.cast(step, tf.int64) * batch)  # before anything is decoded
        if end - first < batch:  # likewise
            ds = ds.enumerate().filter(lambda number, _: (first <= number % batch) & (number % batch < end))
            ds = ds.map(lambda _, example: example)

        def example(name: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            number = tf.strings.to_hash_bucket_fast(name, 2**62)
            return self._decoded_or_encoded(encoded), label, self._seed(epoch, number)

        return ds.map(example, cores)

    def _seed(self, epoch: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Seed of all draws for one image in one epoch: int64 `(2,)`."""
        return tf.stack([self.recipe.seed * 2**32 + epoch, number])

    def _decoded_or_encoded(self, encoded: tf.Tensor) -> tf.Tensor:
        """What `augment_image` takes: the paper's augmentation decodes by itself."""
        if self.recipe.paper_augment:
            return encoded
        return decode(encoded, self.recipe.image_size, self.split.channels, self.split.stored_shape)

    def _decoded(self, shard: Shard = WHOLE) -> tf.data.Dataset:
        size, channels, stored = self.recipe.image_size, self.split.channels, self.split.stored_shape
        ds = self.split.encoded_images()
        if shard.count < shard.of:  # a part of the split, as large as the shard
            start, end = (self.split.size * n // shard.of for n in (shard.first, shard.first + shard.count))
            ds = ds.skip(start).take(end - start)
        return ds.map(lambda encoded, label: (decode(encoded, size, channels, stored), label), CORES)

    def _decoded_bytes(self) -> int:
        return self.split.total * self.recipe.image_size**2 * self.split.channels


def pixel_convention(recipe: Recipe) -> str:
    """How the network of a recipe takes its pixels, a key of `spec.PIXELS`."""
    return recipe.pixels or VARIANTS[recipe.variant].pixels


def augment_image(image: tf.Tensor, seed: tf.Tensor, recipe: Recipe, channels: int) -> tf.Tensor:
    """What training makes of one image.

    Args:
        image: with the paper's augmentation the encoded image, a scalar string; else uint8 `(size, size, channels)`.
        seed: `(2,)` integers that decide every draw.
        recipe: which changes, and how large.
        channels: 1 (gray) or 3.

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


def crop_window(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The window of a decoded image that `augment_image` crops with this seed under the paper's augmentation."""
    return augment.paper_window(tf.shape(image), tf.random.split(seed, 4)[0])


def mix_batch(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, recipe: Recipe) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch after mixup or CutMix; where the recipe has both, each batch gets one of them, half and half.

    Args:
        images: `(batch, size, size, channels)`.
        labels: float32 `(batch, classes)`.
        seed: `(2,)` integers that decide every draw.
        recipe: how strongly.
    """
    choice, draws = tf.unstack(tf.random.split(tf.random.fold_in(seed, 1), 2))

    def mixup() -> tuple[tf.Tensor, tf.Tensor]:
        return augment.mixup(images, labels, draws, recipe.mixup)

    def cutmix() -> tuple[tf.Tensor, tf.Tensor]:
        return augment.cutmix(images, labels, draws, recipe.cutmix)

    if recipe.mixup and recipe.cutmix:
        return tf.cond(tf.random.stateless_uniform((), choice) < 0.5, mixup, cutmix)
    return mixup() if recipe.mixup else cutmix()

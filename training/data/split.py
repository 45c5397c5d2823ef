"""One split of a source: what it holds, and which of its images can be read."""

import dataclasses
import functools
import os
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from training.data.decoding import Shape
from training.data.disk_cache import Stamp, stamp, stamps_in
from training.data.image_folder import ImageFolder
from training.data.threads import without_autotuning

# Names of builders that give their images as arrays, which TFDS encodes as PNG.
MADE_OF_ARRAYS = (
    *("digits", "fashion_mnist_files"),  # of this package
    *("mnist", "fashion_mnist", "kmnist", "emnist", "cifar10", "cifar100"),
)


@dataclasses.dataclass(frozen=True)
class Split:
    """A split, or a slice of one, without the images that are left out.

    An image's name is its path in a folder, and TFDS' id (file and number) in other sources.

    Attributes:
        builder: the prepared source.
        name: TFDS split specification.
        skip: names of images to leave out.
    """

    builder: tfds.core.DatasetBuilder
    name: str
    skip: tuple[str, ...] = ()

    @functools.cached_property
    def total(self) -> int:
        """Number of images, those to leave out included. Raises ValueError where TFDS does not know the split."""
        if isinstance(self.builder, ImageFolder):
            return len(self.builder.files(self.name))
        splits = self.builder.info.splits
        return sum(len(range(splits[part.splitname].num_examples)[part.from_ : part.to]) for part in self._parts())

    @property
    def size(self) -> int:
        """Number of images that are left."""
        return self.total - len(self.skip)

    @property
    def classes(self) -> list[str]:
        """Names of the classes in label order."""
        return list(self.builder.info.features["label"].names)

    @property
    def channels(self) -> int:
        """1 for a source of gray images, else 3."""
        return 1 if self.builder.info.features["image"].shape[-1] == 1 else 3

    @property
    def stored_shape(self) -> Shape | None:
        """Height, width and channels of every image, where TFDS has encoded them from arrays of one shape.

        Other datasets of one declared shape may hold files as they were found, of any format and with EXIF.
        """
        return self.builder.info.features["image"].shape if self.builder.name in MADE_OF_ARRAYS else None

    @property
    def encoded_bytes(self) -> float:
        """About how large the images are before they are decoded; of a slice its fraction."""
        whole = [self.builder.info.splits[part.splitname] for part in self._parts()]
        return self.total * max(part.num_bytes / max(1, part.num_examples) for part in whole)

    def without(self, names: Iterable[str]) -> "Split":
        """The same split, leaving out these images instead of `skip`."""
        return dataclasses.replace(self, skip=tuple(names))

    def examples(self, order: int | None = None) -> tf.data.Dataset:
        """(name, encoded image, label): strings and int64, in the source's order or with its files in another one.

        Args:
            order: a number that decides the order of the files, or None.
        """
        ds = self.all_examples(order)
        if self.skip:
            skip = tf.constant(sorted(self.skip))
            ds = ds.filter(lambda name, encoded, label: ~tf.reduce_any(name == skip))
            ds = ds.apply(tf.data.experimental.assert_cardinality(self.size))
        return ds

    def all_examples(self, order: int | None = None) -> tf.data.Dataset:
        """As `examples`, with the images to leave out."""
        ds = self._read(order, names=True)
        return ds.map(lambda example: (example["tfds_id"], example["image"], example["label"]))

    def encoded_images(self) -> tf.data.Dataset:
        """(encoded image, label), in the source's order."""
        if self.skip:
            return self.examples().map(lambda name, encoded, label: (encoded, label))
        return self._read(names=False).map(lambda example: (example["image"], example["label"]))

    def _read(self, order: int | None = None, *, names: bool) -> tf.data.Dataset:
        """All examples of TFDS with encoded images; without names they are read faster."""
        ds = self.builder.as_dataset(
            split=self.name,
            decoders={"image": tfds.decode.SkipDecoding()},
            shuffle_files=order is not None,
            read_config=tfds.ReadConfig(shuffle_seed=order, try_autocache=False, add_tfds_id=names),
        )
        return without_autotuning(ds)

    def files(self) -> list[tuple[str, int]] | None:
        """(path, label) of every image, where the source is a folder of single files; else None."""
        if not isinstance(self.builder, ImageFolder):
            return None
        skip = set(self.skip)
        return [file for file in self.builder.files(self.name) if file[0] not in skip]

    def names(self) -> list[str]:
        """Names of all images, those to leave out included, in the source's order."""
        if isinstance(self.builder, ImageFolder):  # without opening files, one of which may not be readable
            return [path for path, _ in self.builder.files(self.name)]
        names = self.all_examples().map(lambda name, encoded, label: name)
        return [name.decode() for name in names.as_numpy_iterator()]

    def stamps(self) -> Iterable[Stamp]:
        """Path, size and time of change of every file that the images are in.

        Raises OSError or tf.errors.OpError where a file cannot be examined.
        """
        if isinstance(self.builder, ImageFolder):
            return map(stamp, self.names())
        return stamps_in(os.fspath(self.builder.data_path))

    def _parts(self) -> list[Any]:
        return tfds.core.ReadInstruction.from_spec(self.name).to_absolute(self.builder.info.splits)

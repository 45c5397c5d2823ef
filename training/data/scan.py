"""One pass over the images of a run before it begins: which cannot be read, which lie in two splits, which are rare."""

import functools
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.data.decoding import Shape, bounded, decode_pixels, pixels_of
from training.data.disk_cache import Reading, Stamp, cached
from training.data.image_folder import DIGESTS
from training.data.split import Split
from training.data.threads import CORES
from training.errors import UserError

WHOLE_PIXELS = 2**16  # a JPEG of more pixels is read at an eighth of its height and width, which is faster
NAMED = 5  # images or classes that a message names

log = logging.getLogger(__name__)


class Scan(NamedTuple):
    """What one pass over a split found.

    Attributes:
        names: of the readable images, in no order.
        labels: int64 `(images,)`, theirs.
        contents: int64 `(images,)`, digests of their encoded bytes.
        pixels: int64 `(images,)`, digests of their decoded pixels.
        unreadable: names of the others, in the source's order.
    """

    names: list[str]
    labels: np.ndarray
    contents: np.ndarray
    pixels: np.ndarray
    unreadable: list[str]

    @property
    def digest(self) -> str:
        """Hexadecimal digits that stand for all readable images and their labels, in whatever order."""
        return f"{int((self.contents + self.labels).view('uint64').sum()):016x}"


def scan(splits: Sequence[Split]) -> list[Scan]:
    """Reads and decodes every image of some splits once, those to leave out included.

    A large JPEG is decoded at an eighth of its height and width, so that the digest of its pixels is one of their means
    over 8x8 blocks. What a large source holds is cached until one of its files changes.
    """
    images = sum(split.total for split in splits)
    numbers, *columns = cached("scan", _sources(splits), lambda: _stamps(splits), images, lambda: _examine(splits))
    found = []
    for number, split in enumerate(splits):
        names, labels, contents, pixels = (column[numbers == number] for column in columns)
        texts = [name.decode() for name in names.tolist()]
        good = set(texts)
        unreadable = [] if len(good) == split.total else [name for name in split.names() if name not in good]
        found.append(Scan(texts, labels, contents, pixels, unreadable))
    return found


def _sources(splits: Sequence[Split]) -> list[str]:
    """What tells the splits from others, and decides their labels."""
    return [f"{split.builder.data_dir} {split.builder.info.full_name} {split.name} {split.classes}" for split in splits]


def _stamps(splits: Sequence[Split]) -> Iterator[Stamp]:
    return itertools.chain.from_iterable(split.stamps() for split in splits)


@tf.autograph.experimental.do_not_convert
def _examine(splits: Sequence[Split]) -> Reading:
    """Of every readable image the number of its split, its name and label, and digests of its bytes and its pixels."""

    def examine(number: tf.Tensor, name: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels = tf.io.serialize_tensor(_decode(encoded, stored))
        return number, name, label, *(tf.strings.to_hash_bucket_fast(text, DIGESTS) for text in (encoded, pixels))

    shapes = {split.stored_shape for split in splits}
    stored = shapes.pop() if len(shapes) == 1 else None
    examples = [
        split.all_examples().map(lambda *example, number=number: (number, *example))
        for number, split in enumerate(splits)
    ]
    ds = functools.reduce(tf.data.Dataset.concatenate, examples).map(examine, CORES).ignore_errors().batch(1024)
    columns = [np.concatenate(column) for column in zip(*ds.as_numpy_iterator(), strict=True)] or [np.zeros(0, int)] * 5
    columns = [column.astype("S") if column.dtype == object else column for column in columns]
    return Reading(columns, complete=len(columns[0]) == sum(split.total for split in splits))


def _decode(encoded: tf.Tensor, stored: Shape | None) -> tf.Tensor:
    """The pixels of an image, uint8; raises where they cannot be read, or only with too much memory."""
    if stored is not None:
        return pixels_of(encoded, stored)

    def jpeg() -> tf.Tensor:
        shape = tf.image.extract_jpeg_shape(encoded)
        safe = bounded(encoded, shape)
        return tf.cond(
            tf.reduce_prod(tf.cast(shape[:2], tf.int64)) > WHOLE_PIXELS,
            lambda: tf.io.decode_jpeg(safe, channels=3, ratio=8),
            lambda: tf.io.decode_jpeg(safe, channels=3),
        )

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, lambda: decode_pixels(encoded))


def without_unreadable(split: Split, found: Scan, limit: float = 1.0) -> Split:
    """A split that leaves out the images that a scan could not read, with a warning that names some.

    Raises:
        UserError: more than a fraction `limit` of the images; they are listed.
    """
    names = found.unreadable
    if len(names) > limit * split.total:
        raise UserError(
            f"Expected at most {limit:.1%} unreadable images (--unreadable); Received: {len(names)} of "
            f"{split.total} in {split.name}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
        )
    if names:
        count, total = len(names), split.total
        named = examples_of(names)
        log.warning("%d of %d images of %s are unreadable and left out: %s", count, total, split.name, named)
    return split.without(names)


def find_duplicates(scans: Mapping[str, Scan]) -> list[dict[str, list[str]]]:
    """Images with the same pixels in more than one split.

    Args:
        scans: of the splits, by name.

    Returns:
        For each such image, its names by split.
    """
    pixels = np.concatenate([found.pixels for found in scans.values()])
    owners = [(field, name) for field, found in scans.items() for name in found.names]
    _, numbers, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    groups: dict[int, dict[str, list[str]]] = {}
    for at in np.flatnonzero(counts[numbers] > 1):
        field, name = owners[at]
        groups.setdefault(int(numbers[at]), {}).setdefault(field, []).append(name)
    shared = [{field: sorted(names) for field, names in group.items()} for group in groups.values() if len(group) > 1]
    return sorted(shared, key=lambda group: list(group.values()))


def describe_duplicates(duplicates: Sequence[Mapping[str, Sequence[str]]]) -> list[str]:
    """A sentence for every two splits that share images."""
    fields = dict.fromkeys(field for one in duplicates for field in one)
    sentences = []
    for first, second in itertools.combinations(fields, 2):
        if shared := [one for one in duplicates if first in one and second in one]:
            count, example = sum(len(one[second]) for one in shared), shared[0]
            sentences.append(
                f"{count} {'image' if count == 1 else 'images'} of {second} {'is' if count == 1 else 'are'} in {first} "
                f"too, so that the numbers of {second} are too good (for instance {example[second][0]!r} and "
                f"{example[first][0]!r}; metrics.json names all)"
            )
    return sentences


def describe_rare_classes(found: Scan, classes: Sequence[str]) -> list[str]:
    """A sentence where training images of some classes are missing, and one where a class has only one."""
    counts = np.bincount(found.labels, minlength=len(classes))
    sentences = []
    for count, what in ((0, "no image"), (1, "a single image")):
        if rare := [name for name, number in zip(classes, counts, strict=True) if number == count]:
            sentences.append(f"train has {what} of {len(rare)} of {len(classes)} classes: {examples_of(rare)}")
    return sentences


def examples_of(names: Sequence[str]) -> str:
    """The first of some names, for a message."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")

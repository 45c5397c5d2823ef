"""The orientation in an image's EXIF, which every phone and browser applies: eight ways to flip and to turn it.

Sources: EXIF 2.32 (CIPA DC-008), sections 4.5 to 4.7; PNG, third edition, section 11.3.5; RFC 9649, section 2.7. Files
come from anywhere: EXIF that is truncated, points outside or never ends counts as upright.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.data.byte_strings import PaddedBytes, graph_of_its_own, holds, place_values, walk

UPRIGHT = 1
TAG, SHORT = 0x0112, 3  # of the entry in EXIF, and the type of its value
MAX_SEGMENTS = 1000  # that are looked at in a file


class Format(NamedTuple):
    """A file format that holds EXIF in one of its segments (in JPEG's terms; elsewhere chunks)."""

    at: int  # position of the format's magic bytes
    magic: bytes
    first: int  # position of the first segment
    exif: dict[int, bytes]  # how one with EXIF starts: bytes by their position in the segment
    least: dict[int, int]  # lowest values of bytes in those that may come before it
    content: int  # position of what it holds
    length: tuple[int, ...]  # positions of the bytes of its length, from the lowest to the highest
    uncounted: int  # bytes that the length leaves out
    even: int  # 1 where an odd length is followed by a byte of padding, else 0


FORMATS = (
    # Segments for applications and comments come before, not tables.
    Format(0, b"\xff\xd8\xff", 2, {0: b"\xff\xe1", 4: b"Exif\0\0"}, {0: 0xFF, 1: 0xE0}, 4, (3, 2), 2, 0),
    # PLTE and chunks in lower case come before, not the pixels.
    Format(0, b"\x89PNG", 33, {4: b"eXIf"}, {4: ord("P")}, 8, (3, 2, 1, 0), 12, 0),
    Format(8, b"WEBPVP8X", 12, {0: b"EXIF"}, {}, 8, (4, 5, 6, 7), 8, 1),
)
HEADER_BYTES = 10  # of a segment


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """How an image is stored, by the EXIF of a JPEG, PNG (where it comes before the pixels) or WebP file.

    Args:
        encoded: scalar string.

    Returns:
        int32 scalar from 1 (upright) to 8. See `upright`.
    """
    # Most JPEGs have their first table at 2 or 20 and most PNGs their pixels at 37, and then no EXIF came before.
    plain = holds(encoded, (2, b"\xff\xdb"), (20, b"\xff\xdb"), (37, b"IDAT"))
    return tf.cond(tf.reduce_any(plain), lambda: UPRIGHT, lambda: _read(encoded))


@graph_of_its_own
def _read(encoded: tf.Tensor) -> tf.Tensor:
    exif = _exif(encoded)
    return tf.cond(exif == b"", lambda: UPRIGHT, lambda: _of_tiff(exif))


def _exif(encoded: tf.Tensor) -> tf.Tensor:
    """What an image's first segment with EXIF holds, or an empty string."""
    kinds = holds(encoded, *[(kind.at, kind.magic) for kind in FORMATS])
    exif, relevant, least, length, numbers = tf.unstack(tf.gather(_rows(), tf.argmax(kinds)))
    first, content, uncounted, even = tf.unstack(numbers[:4])
    data, is_known = PaddedBytes(encoded), tf.reduce_any(kinds)

    def holds_exif(header: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all(header * relevant == exif) & is_known

    def may_come_before(at: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all(header >= least) & tf.reduce_any(header > 0) & ~holds_exif(header)

    def following(at: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
        size = tf.reduce_sum(header * length)
        return at + uncounted + size + even * (size % 2)

    at, header = walk(first, lambda at: data.values(at, HEADER_BYTES), may_come_before, following, MAX_SEGMENTS)
    found = data.part(at + content, following(at, header) - at - content)
    return tf.where(holds_exif(header), found, b"")


def _rows() -> np.ndarray:
    """What `_exif` takes of `FORMATS`: `(formats, 5, HEADER_BYTES)`, what and where, lowest, length, other numbers."""
    rows = np.zeros((len(FORMATS), 5, HEADER_BYTES), "int64")
    for (exif, relevant, least, length, numbers), kind in zip(rows, FORMATS, strict=True):
        for at, name in kind.exif.items():
            exif[at : at + len(name)], relevant[at : at + len(name)] = list(name), 1
        least[list(kind.least)] = list(kind.least.values())
        length[:] = place_values(HEADER_BYTES, kind.length)
        numbers[:4] = kind.first, kind.content, kind.uncounted, kind.even
    return rows


# The place values of the two bytes of a 16-bit number, and of the two such numbers of a 32-bit one.
_BIG_ENDIAN = np.array([[2**8, 1], [2**16, 1]])


def _of_tiff(exif: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of EXIF, which is a TIFF file; upright where there is none."""
    prefix = b"Exif\0\0"  # of a JPEG always, of other files by mistake
    start = tf.where(holds(exif, (0, prefix))[0], tf.constant(len(prefix), tf.int64), 0)
    whole = PaddedBytes(exif)
    tiff = PaddedBytes(whole.part(start, whole.length))
    magic = tiff.part(0, 4)
    big = magic == b"MM\0*"
    order, words = tf.unstack(tf.where(big, _BIG_ENDIAN, _BIG_ENDIAN[:, ::-1]))

    def numbers(first: int | tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:  # of two bytes each
        return tf.linalg.matvec(tf.reshape(tiff.values(first, 2 * count), (-1, 2)), order)

    directory = tf.reduce_sum(numbers(4, 2) * words)
    room = (tiff.length - directory - 2) // 12  # for entries
    count = tf.maximum(tf.minimum(numbers(directory, 1)[0], room), 0)
    tag, kind, _, _, value, _ = tf.unstack(tf.reshape(numbers(directory + 2, 6 * count), (-1, 6)), axis=1)
    valid = (tag == TAG) & (kind == SHORT) & (value >= 1) & (value <= 8) & (big | (magic == b"II*\0"))
    return tf.maximum(tf.cast(tf.reduce_max(tf.where(valid, value, UPRIGHT)), tf.int32), UPRIGHT)


def upright(image: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """An image the way up that its orientation asks for.

    Args:
        image: uint8 `(height, width, 3)` as stored.
        turned: its orientation, int32 scalar from 1 to 8.

    Returns:
        uint8 `(height, width, 3)`, height and width exchanged for orientations from 5.
    """
    return tf.cond(turned == UPRIGHT, lambda: image, lambda: _turn(image, turned))


@tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((), tf.int32)],
    experimental_attributes={"_noinline": True},
)
def _turn(image: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    image = tf.cond(turned >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    dims = tf.concat([_flips(turned), [False]], 0)  # a slice with a step of -1 would take ten times as long
    return tf.ensure_shape(tf.raw_ops.Reverse(tensor=image, dims=dims), (None, None, 3))


def upright_shape(shape: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """Height and width of the upright image, `(2,)`, from those of the stored one, `(2,)` or longer."""
    return tf.where(turned >= 5, shape[1::-1], shape[:2])


def stored_window(window: tf.Tensor, shape: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """Where a window of the upright image lies in the stored one.

    Args:
        window: int32 `(4,)`: top, left, height and width.
        shape: of the upright image, int32 `(2,)`.
        turned: its orientation, int32 scalar from 1 to 8.

    Returns:
        int32 `(4,)`: top, left, height and width.
    """
    place, size = window[:2], window[2:]
    parts = tf.stack([tf.where(_flips(turned), shape - place - size, place), size])
    return tf.reshape(tf.where(turned >= 5, parts[:, ::-1], parts), (4,))


def _flips(turned: tf.Tensor) -> tf.Tensor:
    """Whether up and down, and left and right, are exchanged; from 5 on after transposing. bool `(2,)`."""
    return tf.constant([[False, False], [False, True], [True, True], [True, False]])[(turned - 1) % 4]

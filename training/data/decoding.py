"""Encoded images to pixels, within bounds: whatever a file holds, its size is known before it is decoded."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.data.byte_strings import graph_of_its_own, letters, number, part, starts, to_bytes, walk
from training.data.orientation import orientation, upright

MAX_PIXELS = 2**26  # 8,192 x 8,192: 192 MiB as uint8 and 768 MiB as float32, for each image in work at one time


class Header(NamedTuple):
    """Where the header of one file format has the size of its image. Bytes from the lowest to the highest."""

    at: int  # position of the format's magic bytes
    name: bytes
    height: tuple[int, ...]  # positions of bytes
    width: tuple[int, ...]
    height_divisor: int = 1
    modulus: int = 2**32
    add: int = 0


HEADERS = (
    Header(0, b"\x89PNG", (23, 22, 21, 20), (19, 18, 17, 16)),  # RFC 2083, IHDR
    Header(0, b"GIF8", (8, 9), (6, 7)),  # GIF89a, logical screen
    Header(0, b"BM", (22, 23, 24, 25), (18, 19, 20, 21)),  # BITMAPINFOHEADER; a negative height is from top to bottom
    Header(8, b"WEBPVP8X", (27, 28, 29), (24, 25, 26), add=1),  # RFC 9649, sections 2.5 to 2.7
    Header(8, b"WEBPVP8L", (21, 22, 23, 24), (21, 22, 23, 24), height_divisor=2**14, modulus=2**14, add=1),
    Header(8, b"WEBPVP8 ", (28, 29), (26, 27), modulus=2**14),
)
HEADER_BYTES = 32


def decode(encoded: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF, BMP or WebP image and resizes its center square.

    Args:
        encoded: scalar string.
        size: height and width of the result, pixels.
        channels: 1 (gray) or 3.

    Returns:
        uint8 `(size, size, channels)`.

    Raises:
        tf.errors.InvalidArgumentError: see `decode_pixels`.
    """
    image = _on_scale(center_square(decode_pixels(encoded)), channels)
    image = tf.cond(tf.shape(image)[0] == size, lambda: image, lambda: resize(image, (size, size)))
    image = tf.saturate_cast(tf.round(image), tf.uint8)
    return tf.ensure_shape(image, (size, size, channels))


def decode_whole(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """An image as `decode` reads it, at its own size: float32 `(height, width, channels)` on the 0-255 scale."""
    return _on_scale(decode_pixels(encoded), channels)


@tf.function(autograph=False, input_signature=[tf.TensorSpec((), tf.string)])
def decode_pixels(encoded: tf.Tensor) -> tf.Tensor:
    """Every pixel of an image, the first one of an animation, by what the file holds and not by its name.

    It is upright, as its EXIF says (see `orientation`). CMYK becomes RGB, palettes their colors, 16 bits the upper 8,
    transparency is dropped.

    Args:
        encoded: scalar string; JPEG, PNG, GIF, BMP or WebP.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: no such image, a truncated one, or one of more than `MAX_PIXELS`.
    """
    turned = orientation(encoded)  # of the whole file: a frame alone has no EXIF
    animated = starts(encoded, 0, b"GIF8") | starts(encoded, 8, b"WEBPVP8X")
    encoded = tf.cond(animated, lambda: first_frame(encoded), lambda: encoded)
    encoded = bounded(encoded)
    image = tf.cond(tf.io.is_jpeg(encoded), lambda: _decode_jpeg(encoded), lambda: _decode_other(encoded))
    return upright(tf.ensure_shape(image, (None, None, 3)), turned)


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """As Pillow and browsers decode it; TensorFlow's default, a faster transform, differs from them by up to 13."""
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        _is_still_webp(encoded),
        lambda: tf.io.decode_image(encoded, channels=0, expand_animations=False)[..., :3],
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )


def _is_still_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Whether an image is a WebP of the kinds that can be transparent, which TensorFlow refuses in three channels, and
    no animation by its flags, whose frames it would decode in four (see `webp_first_frame`)."""
    flags = number(to_bytes(part(encoded, 20, 21), at_least=1), 0, 1)
    extended = starts(encoded, 8, b"WEBPVP8X") & (flags // 2 % 2 == 0)  # RFC 9649, section 2.7.1
    return starts(encoded, 8, b"WEBPVP8L") | extended


def bounded(encoded: tf.Tensor, shape: tf.Tensor | None = None) -> tf.Tensor:
    """The image itself where its header declares from 1 to `MAX_PIXELS` pixels, else an empty string.

    Every decoder refuses that. An assertion would be clearer, but it costs a third of the augmentation's speed.

    Args:
        encoded: scalar string.
        shape: height and width that the header declares, where they are known already.
    """
    pixels = tf.reduce_prod(encoded_shape(encoded) if shape is None else tf.cast(shape[:2], tf.int64))
    return tf.where((pixels >= 1) & (pixels <= MAX_PIXELS), encoded, b"")


def encoded_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width that an image's header announces, int64 `(2,)`; zeros where it is no known image."""

    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64),
        lambda: _announced(encoded),
    )


@graph_of_its_own
def _announced(encoded: tf.Tensor) -> tf.Tensor:
    head = to_bytes(part(encoded, 0, HEADER_BYTES), HEADER_BYTES + 1)  # the last one is zero
    known = np.zeros((len(HEADERS), HEADER_BYTES + 1), "int64")
    relevant = np.zeros_like(known)
    for row, header in enumerate(HEADERS):
        magic = slice(header.at, header.at + len(header.name))
        known[row, magic], relevant[row, magic] = list(header.name), 1
    matches = tf.reduce_all(head * relevant == known, axis=1)
    places = np.full((2, len(HEADERS), 4), HEADER_BYTES)
    for row, header in enumerate(HEADERS):
        places[0, row, : len(header.height)], places[1, row, : len(header.width)] = header.height, header.width
    numbers = tf.reduce_sum(tf.gather(head, places) * 256 ** np.arange(4), axis=2)  # (2, kinds)
    numbers = tf.where(numbers < 2**31, numbers, 2**32 - numbers)
    divisors = np.array([[header.height_divisor for header in HEADERS], [1] * len(HEADERS)])
    modulus, add = (np.array([getattr(header, name) for header in HEADERS]) for name in ("modulus", "add"))
    return tf.reduce_sum(tf.where(matches, numbers // divisors % modulus + add, 0), axis=1)


@graph_of_its_own
def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """An animated GIF or WebP image without the frames after the first one."""
    return tf.cond(starts(encoded, 0, b"GIF8"), lambda: gif_first_frame(encoded), lambda: webp_first_frame(encoded))


def gif_first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """A GIF cut after its first image, since TensorFlow's decoder would unpack every frame to keep one.

    The frame's own size replaces the screen's in the header where it is larger, so that the header bounds how much
    memory the decoding takes. What is no GIF comes out as something that is none either.

    Source: GIF89a specification.
    """
    data = to_bytes(encoded, at_least=16)

    def colors(flags: tf.Tensor) -> tf.Tensor:  # bytes of a color table
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8), 0)

    def after_blocks(at: tf.Tensor) -> tf.Tensor:  # each with its length before it, up to an empty one
        return 1 + walk(at, lambda at: number(data, at, 1) > 0, lambda at: at + 1 + number(data, at, 1))

    start = 13 + colors(data[10])
    frame = walk(start, lambda at: number(data, at, 1) == 0x21, lambda at: after_blocks(at + 2))
    width = tf.maximum(number(data, 6, 2), number(data, frame + 5, 2))
    height = tf.maximum(number(data, 8, 2), number(data, frame + 7, 2))
    end = after_blocks(frame + 11 + colors(number(data, frame + 9, 1)))
    return tf.strings.join([part(encoded, 0, 6), letters(width, 2), letters(height, 2), part(encoded, 10, end), b";"])


def webp_first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """The first image of an animated WebP as a WebP of its own; any other comes out as it is.

    TensorFlow 2.21 refuses animations in three channels and writes beyond its memory when it decodes them in four.

    Source: RFC 9649, section 2.7.
    """
    data = to_bytes(encoded, at_least=16)
    size = tf.cast(tf.strings.length(encoded), tf.int64)

    def after(chunk: tf.Tensor) -> tf.Tensor:  # name, size, content, padded to an even size
        return chunk + 8 + (number(data, chunk + 4, 4) + 1) // 2 * 2

    def other_than(name: bytes) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda at: (at < size) & (part(encoded, at, at + 4) != name)

    frame = walk(12, other_than(b"ANMF"), after)
    inside = frame + 8 + 16
    chunk = tf.where(part(encoded, inside, inside + 4) == b"ALPH", after(inside), inside)
    image = part(encoded, chunk, after(chunk))
    length = 4 + tf.cast(tf.strings.length(image), tf.int64)
    alone = tf.strings.join([b"RIFF", letters(length, 4), b"WEBP", image])
    return tf.where(frame < size, alone, encoded)


def resize(image: tf.Tensor, shape: tuple[int, int] | tf.Tensor) -> tf.Tensor:
    """The resizing of every evaluation: bicubic, and reducing averages over what each pixel covers. float32."""
    return tf.image.resize(image, shape, "bicubic", antialias=True)


def center_square(image: tf.Tensor) -> tf.Tensor:
    """The largest centered square of `(height, width, channels)`."""
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def _on_scale(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """uint8 colors to float32 `(height, width, channels)`."""
    image = tf.cast(pixels, tf.float32)
    # Rounded, since the weights of red, green and blue add up to 0.9999: a gray image keeps its values.
    return tf.round(tf.image.rgb_to_grayscale(image)) if channels == 1 else image

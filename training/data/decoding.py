"""Encoded images to pixels, within bounds: whatever a file holds, its size is known before it is decoded."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.data.byte_strings import PaddedBytes, graph_of_its_own, holds, place_values, to_bytes, walk
from training.data.orientation import orientation, upright

Shape = tuple[int, int, int]  # height, width, channels

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

# RE2, in which \C is any byte: the signature, the header's size, height and width below 4,096, the rest, the next name.
PLAIN_PNG = r"\CPNG\r\n\x1a\n\x00{3}\rIHDR(\x00\x00[\x00-\x0f]\C){2}\C{13}IDAT"
PLAIN_PNG_BYTES = 41


def decode(encoded: tf.Tensor, size: int, channels: int, stored: Shape | None = None) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF, BMP or WebP image and resizes its center square.

    Args:
        encoded: scalar string.
        size: height and width of the result, pixels.
        channels: 1 (gray) or 3.
        stored: see `pixels_of`.

    Returns:
        uint8 `(size, size, channels)`.

    Raises:
        tf.errors.InvalidArgumentError: see `decode_pixels`.
    """
    image = _in_channels(center_square(pixels_of(encoded, stored)), channels)

    def resized() -> tf.Tensor:
        return tf.saturate_cast(tf.round(resize(image, (size, size))), tf.uint8)

    image = tf.cond(tf.shape(image)[0] == size, lambda: image, resized)
    return tf.ensure_shape(image, (size, size, channels))


def decode_whole(encoded: tf.Tensor, channels: int, stored: Shape | None = None) -> tf.Tensor:
    """An image as `decode` reads it, at its own size: float32 `(height, width, channels)` on the 0-255 scale."""
    return tf.cast(_in_channels(pixels_of(encoded, stored), channels), tf.float32)


def pixels_of(encoded: tf.Tensor, stored: Shape | None) -> tf.Tensor:
    """Every pixel of an image of some source.

    Args:
        encoded: scalar string.
        stored: height, width and channels of all images of the source, where they are PNGs that TFDS encoded (see
            `Split.stored_shape`): then no other format and no EXIF is looked for, so that a dataset starts sooner.

    Returns:
        uint8 `(height, width, channels)`, with one channel where so many are stored, else with three.

    Raises:
        tf.errors.InvalidArgumentError: see `decode_pixels`; with `stored`, no plain PNG, or one of another size.
    """
    if stored is None:
        return decode_pixels(encoded)
    channels = 1 if stored[2] == 1 else 3
    image = tf.io.decode_png(tf.where(is_plain_png(encoded), encoded, b""), channels=channels)
    return tf.ensure_shape(image, (*stored[:2], channels))


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
    return tf.cond(is_plain_png(encoded), lambda: tf.io.decode_png(encoded, channels=3), lambda: _decode_any(encoded))


def is_plain_png(encoded: tf.Tensor) -> tf.Tensor:
    """Whether an image is a PNG of fewer than 4,096 pixels in height and width whose pixels follow its header.

    All that TFDS encodes are. Such an image has no EXIF before its pixels, and needs no other check of its size.
    """
    return tf.strings.regex_full_match(tf.strings.substr(encoded, 0, PLAIN_PNG_BYTES), PLAIN_PNG)


def _decode_any(encoded: tf.Tensor) -> tf.Tensor:
    turned = orientation(encoded)  # of the whole file: a frame alone has no EXIF
    animated = holds(encoded, (0, b"GIF8"), (8, b"WEBPVP8X"))
    encoded = tf.cond(tf.reduce_any(animated), lambda: first_frame(encoded), lambda: encoded)
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


@graph_of_its_own
def _is_still_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Whether an image is a WebP of the kinds that can be transparent, which TensorFlow refuses in three channels, and
    no animation by its flags, whose frames it would decode in four (see `webp_first_frame`)."""
    flags = PaddedBytes(encoded).values(20, 1)[0]  # RFC 9649, section 2.7.1
    lossless, extended = tf.unstack(holds(encoded, (8, b"WEBPVP8L"), (8, b"WEBPVP8X")))
    return lossless | (extended & (flags // 2 % 2 == 0))


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
    head = PaddedBytes(encoded).values(0, HEADER_BYTES)
    known = np.zeros((len(HEADERS), HEADER_BYTES), "int64")
    relevant = np.zeros_like(known)
    sizes = np.zeros((len(HEADERS), 2, HEADER_BYTES), "int64")
    for row, header in enumerate(HEADERS):
        magic = slice(header.at, header.at + len(header.name))
        known[row, magic], relevant[row, magic] = list(header.name), 1
        sizes[row] = place_values(HEADER_BYTES, header.height), place_values(HEADER_BYTES, header.width)
    matches = tf.reduce_all(head * relevant == known, axis=1)
    numbers = tf.reduce_sum(head * sizes, axis=2)  # (kinds, 2)
    numbers = tf.where(numbers < 2**31, numbers, 2**32 - numbers)
    divisors = np.array([[header.height_divisor, 1] for header in HEADERS])
    modulus, add = (np.array([[getattr(header, name)] for header in HEADERS]) for name in ("modulus", "add"))
    return tf.reduce_sum(tf.where(matches[:, None], numbers // divisors % modulus + add, 0), axis=0)


@graph_of_its_own
def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """An animated GIF or WebP image without the frames after the first one."""
    return tf.cond(holds(encoded, (0, b"GIF8"))[0], lambda: gif_first_frame(encoded), lambda: webp_first_frame(encoded))


def gif_first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """A GIF cut after its first image, since TensorFlow's decoder would unpack every frame to keep one.

    The frame's own size replaces the screen's in the header where it is larger, so that the header bounds how much
    memory the decoding takes. What is no GIF comes out as something that is none either.

    Source: GIF89a specification.
    """
    data = PaddedBytes(encoded)

    def after_colors(at: int | tf.Tensor, flags: tf.Tensor) -> tf.Tensor:  # a color table
        return at + tf.where(flags >= 128, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8), 0)

    def after_blocks(at: tf.Tensor) -> tf.Tensor:  # each with its length before it, up to an empty one
        last, _ = walk(
            at,
            lambda at: data.values(at, 1)[0],
            lambda at, size: size > 0,
            lambda at, size: at + 1 + size,
        )
        return 1 + last

    screen = data.values(6, 5)  # width and height, two bytes each, and flags
    frame, image = walk(  # its descriptor: its name, left, top, width, height, and flags
        after_colors(13, screen[4]),
        lambda at: data.values(at, 10),
        lambda at, values: values[0] == 0x21,
        lambda at, values: after_blocks(at + 2),
    )
    end = after_blocks(after_colors(frame + 11, image[9]))
    sizes = tf.linalg.matvec(tf.reshape(tf.concat([screen[:4], image[5:9]], 0), (2, 2, 2)), np.array([1, 256]))
    header = [data.part(0, 6), to_bytes(tf.reduce_max(sizes, axis=0), 2)]
    return tf.strings.join([*header, data.part(10, end - 10), b";"])


def webp_first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """The first image of an animated WebP as a WebP of its own; any other comes out as it is.

    TensorFlow 2.21 refuses animations in three channels and writes beyond its memory when it decodes them in four.

    Source: RFC 9649, section 2.7.
    """
    data = PaddedBytes(encoded)
    size = place_values(8, range(4, 8))  # of a chunk's content, after its name

    def after(chunk: tf.Tensor, header: tf.Tensor) -> tf.Tensor:  # the content is padded to an even size
        return chunk + 8 + (tf.reduce_sum(header * size) + 1) // 2 * 2

    def has_name(header: tf.Tensor, name: bytes) -> tf.Tensor:
        return tf.reduce_all(header[:4] == list(name))

    def read(at: tf.Tensor) -> tf.Tensor:
        return data.values(at, 8)

    frame, _ = walk(12, read, lambda at, header: (at < data.length) & ~has_name(header, b"ANMF"), after)
    inside = frame + 8 + 16
    first = read(inside)
    chunk = tf.where(has_name(first, b"ALPH"), after(inside, first), inside)
    image = data.part(chunk, after(chunk, read(chunk)) - chunk)
    length = 4 + tf.cast(tf.strings.length(image), tf.int64)
    alone = tf.strings.join([b"RIFF", to_bytes(length[None], 4), b"WEBP", image])
    return tf.where(frame < data.length, alone, encoded)


def resize(image: tf.Tensor, shape: tuple[int, int] | tf.Tensor) -> tf.Tensor:
    """The resizing of every evaluation: bicubic, and reducing averages over what each pixel covers. float32."""
    return tf.image.resize(image, shape, "bicubic", antialias=True)


def center_square(image: tf.Tensor) -> tf.Tensor:
    """The largest centered square of `(height, width, channels)`."""
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def _in_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """uint8 colors or gray values to uint8 `(height, width, channels)`."""
    if channels == pixels.shape[-1]:
        return pixels
    if channels == 3:
        return tf.image.grayscale_to_rgb(pixels)
    # Rounded, since the weights of red, green and blue add up to 0.9999: a gray image keeps its values.
    return tf.cast(tf.round(tf.image.rgb_to_grayscale(tf.cast(pixels, tf.float32))), tf.uint8)

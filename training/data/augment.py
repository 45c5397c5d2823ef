"""Random changes to one image: pure functions of the image and a seed, the same eagerly and inside `tf.data`.

Seeds are `(2,)` integer tensors; the same seed gives the same result. Images are `(height, width, channels)`.
"""

import math

import numpy as np
import tensorflow as tf

from training.data.decoding import bounded, decode_pixels
from training.data.orientation import orientation, stored_window, upright, upright_shape

CROP_AREA = (0.08, 1.0)  # arXiv 1409.4842, section 6: fraction of the image's area
CROP_RATIO = (3 / 4, 4 / 3)  # and width over height
CROP_ATTEMPTS = 10
INTERPOLATIONS = ("bilinear", "area", "nearest", "bicubic")  # section 6: "with equal probability"

# Photometric distortions of Howard 2013 (arXiv 1312.5402), which section 6 cites.
BRIGHTNESS = 32.0  # added, at most this much either way on the 0-255 scale
CONTRAST = (0.5, 1.5)  # about the mean color
SATURATION = (0.5, 1.5)  # about the gray of the same luma
HUE = 0.2  # of the full circle, at most this much either way
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], "float32")  # NTSC

# Principal components of ImageNet's RGB values, 0-1 scale (Krizhevsky et al. 2012, section 4.1).
PCA_VALUES = (0.2175, 0.0188, 0.0045)
PCA_VECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def paper(encoded: tf.Tensor, seed: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """The paper's augmentation: crop, random interpolation, mirror, photometric distortions.

    Args:
        encoded: scalar string, as in `decode_window`.
        seed: decides every draw.
        size: height and width of the result, pixels.
        channels: 1 (gray) or 3.

    Returns:
        float32 `(size, size, channels)` on the 0-255 scale.
    """
    crop, interpolation, mirror, color = _paper_seeds(seed)
    image = decode_window(encoded, crop)
    image = random_resize(image, interpolation, size)
    if channels == 1:
        image = tf.image.rgb_to_grayscale(image)
    image = random_flip(tf.ensure_shape(image, (size, size, channels)), mirror)
    return photometric(image, color)


def paper_window(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The window that `paper` crops from an image of `shape` with this seed. See `inception_crop`."""
    return inception_crop(shape, _paper_seeds(seed)[0])


def _paper_seeds(seed: tf.Tensor) -> list[tf.Tensor]:
    """Seeds of the crop, the interpolation, the mirror and the colors."""
    return tf.unstack(tf.random.split(seed, 4))


def inception_crop(
    shape: tf.Tensor,
    seed: tf.Tensor,
    area: tuple[float, float] = CROP_AREA,
    ratio: tuple[float, float] = CROP_RATIO,
) -> tf.Tensor:
    """Draws the window of the paper's crop: a uniform fraction of the area, a log-uniform aspect ratio, any position.

    Where none of ten draws fits, the window is the largest centered one whose ratio is in range.

    Args:
        shape: `(2,)` or longer integers, height and width of the image first.
        seed: of the draw.
        area: smallest and largest fraction of the image's area.
        ratio: smallest and largest width over height.

    Returns:
        int32 `(4,)`: top, left, height and width of the window, inside the image.
    """
    shape_seed, place_seed = tf.unstack(tf.random.split(seed, 2))
    height, width = tf.unstack(tf.cast(shape[:2], tf.float32))
    draws = tf.random.stateless_uniform((CROP_ATTEMPTS, 2), shape_seed)
    areas = height * width * (area[0] + draws[:, 0] * (area[1] - area[0]))
    ratios = tf.exp(math.log(ratio[0]) + draws[:, 1] * (math.log(ratio[1]) - math.log(ratio[0])))
    heights, widths = tf.round(tf.sqrt(areas / ratios)), tf.round(tf.sqrt(areas * ratios))
    fits = (heights >= 1) & (widths >= 1) & (heights <= height) & (widths <= width)
    first = tf.argmax(fits)  # the first True, or 0 where there is none
    any_fits = tf.reduce_any(fits)
    crop_height = tf.where(any_fits, heights[first], tf.minimum(height, tf.round(width / ratio[0])))
    crop_width = tf.where(any_fits, widths[first], tf.minimum(width, tf.round(height * ratio[1])))
    size = tf.maximum(tf.stack([crop_height, crop_width]), 1)
    room = tf.stack([height, width]) - size
    place = tf.random.stateless_uniform((2,), place_seed)
    offset = tf.where(any_fits, tf.minimum(tf.floor(place * (room + 1)), room), tf.floor(room / 2))
    return tf.cast(tf.concat([offset, size], 0), tf.int32)


def decode_window(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    area: tuple[float, float] = CROP_AREA,
    ratio: tuple[float, float] = CROP_RATIO,
) -> tf.Tensor:
    """Decodes the part of an upright image that `inception_crop` draws; of a JPEG only the blocks that it touches.

    Args:
        encoded: scalar string; JPEG, PNG, GIF (first frame), BMP or WebP.
        seed, area, ratio: as in `inception_crop`.

    Returns:
        uint8 `(height, width, 3)` of the window.
    """

    def jpeg() -> tf.Tensor:
        stored, turned = tf.image.extract_jpeg_shape(encoded), orientation(encoded)
        shape = upright_shape(stored, turned)
        window = stored_window(inception_crop(shape, seed, area, ratio), shape, turned)
        image = tf.image.decode_and_crop_jpeg(
            bounded(encoded, stored), window, channels=3, dct_method="INTEGER_FAST", fancy_upscaling=False
        )
        return upright(image, turned)

    def other() -> tf.Tensor:
        image = decode_pixels(encoded)
        return window_of(image, inception_crop(tf.shape(image), seed, area, ratio))

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, other)


def window_of(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The part of an image at (top, left, height, width)."""
    top, left, height, width = tf.unstack(window)
    return image[top : top + height, left : left + width]


def random_resize(image: tf.Tensor, seed: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes to `(size, size, channels)` by one of four interpolations, each as likely. uint8 or float to float32."""
    method = tf.random.stateless_uniform((), seed, 0, len(INTERPOLATIONS), tf.int32)
    branches = [lambda m=m: tf.cast(tf.image.resize(image, (size, size), m), tf.float32) for m in INTERPOLATIONS]
    # Bicubic overshoots.
    return tf.clip_by_value(tf.switch_case(method, branches), 0, 255)


def random_flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors left to right for half of the seeds."""
    return tf.image.stateless_random_flip_left_right(image, seed)


def photometric(image: tf.Tensor, seed: tf.Tensor, lighting: float = 0.1) -> tf.Tensor:
    """Changes brightness, contrast, saturation, hue and the light's color by random amounts.

    All five are affine maps of the color: contrast turns about the mean color, saturation and hue about the gray
    axis at constant luma (hue as a rotation of I and Q), brightness moves along it. So their order, which the paper's
    code draws at random, makes no difference up to the clipping at the end, and one 3x3 matrix applies them all.

    Args:
        image: float32 `(height, width, channels)` on the 0-255 scale; gray (one channel) has neither saturation, hue
            nor light.
        seed: of the draws.
        lighting: standard deviation of the mixture of ImageNet's principal components that is added, in standard
            deviations of each component.

    Returns:
        float32 of the same shape, clipped to 0-255.
    """
    draws, light = tf.unstack(tf.random.split(seed, 2))
    brightness, contrast, saturation, hue = tf.unstack(tf.random.stateless_uniform((4,), draws))
    contrast = _between(CONTRAST, contrast)
    matrix = contrast * tf.eye(image.shape[-1])
    offset = (1 - contrast) * _mean_color(image) + (2 * brightness - 1) * BRIGHTNESS
    if image.shape[-1] == 3:
        turn = tf.matmul(_hue((2 * hue - 1) * HUE), _saturation(_between(SATURATION, saturation)))
        matrix, offset = tf.matmul(turn, matrix), tf.linalg.matvec(turn, offset)
        mixture = tf.random.stateless_normal((3,), light) * lighting * tf.constant(PCA_VALUES)
        offset += 255 * tf.linalg.matvec(tf.constant(PCA_VECTORS), mixture)
    # A 1x1 convolution and its bias run as one kernel.
    changed = tf.nn.bias_add(tf.nn.conv2d(image[None], tf.transpose(matrix)[None, None], 1, "VALID"), offset)[0]
    return tf.clip_by_value(changed, 0, 255)


def _mean_color(image: tf.Tensor) -> tf.Tensor:
    """`(channels,)`: the rows first, as long vectors."""
    height, width, channels = tf.unstack(tf.shape(image))
    row = tf.reduce_mean(tf.reshape(image, (height, width * channels)), axis=0)
    return tf.reduce_mean(tf.reshape(row, (width, image.shape[-1])), axis=0)


def _between(bounds: tuple[float, float], fraction: tf.Tensor) -> tf.Tensor:
    return bounds[0] + fraction * (bounds[1] - bounds[0])


def _saturation(factor: tf.Tensor) -> tf.Tensor:
    """3x3 map of colors: the gray of the same luma at 0, no change at 1."""
    gray = tf.constant(np.tile(TO_YIQ[0], (3, 1)))
    return factor * tf.eye(3) + (1 - factor) * gray


def _hue(turn: tf.Tensor) -> tf.Tensor:
    """3x3 map of colors: a rotation of I and Q by `turn` circles."""
    cos, sin = tf.cos(2 * math.pi * turn), tf.sin(2 * math.pi * turn)
    rotation = tf.reshape(tf.stack([1.0, 0.0, 0.0, 0.0, cos, -sin, 0.0, sin, cos]), (3, 3))
    return tf.matmul(tf.constant(np.linalg.inv(TO_YIQ)), tf.matmul(rotation, tf.constant(TO_YIQ)))


def random_affine(image: tf.Tensor, seed: tf.Tensor, rotate: float, zoom: float, shift: float) -> tf.Tensor:
    """Rotates, zooms and shifts about the center, bilinear, repeating the border.

    Shifts alone go by whole pixels, so that nothing blurs.

    Args:
        image: uint8 or float.
        seed: of the draw.
        rotate: largest angle, degrees.
        zoom: factor from `1 - zoom` to `1 + zoom`.
        shift: largest shift along each axis, as a fraction of its length.

    Returns:
        float32 of the same shape, on the same scale.
    """
    angle, scale, down, right = tf.unstack(tf.random.stateless_uniform((4,), seed, -1.0, 1.0))
    angle, scale = angle * (rotate * math.pi / 180), 1 + scale * zoom
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    x, y = (width - 1) / 2, (height - 1) / 2
    down, right = down * shift * height, right * shift * width
    if not rotate and not zoom:
        down, right = tf.round(down), tf.round(right)
    # Output pixel to input pixel: turn about the center (x, y), then shift.
    matrix = [
        cos, -sin, x - cos * x + sin * y + right,
        sin, cos, y - sin * x - cos * y + down,
        0.0, 0.0,
    ]  # fmt: skip
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.stack(matrix)[None],
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )[0]


def random_erase(
    image: tf.Tensor,
    seed: tf.Tensor,
    probability: float,
    area: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
) -> tf.Tensor:
    """Fills a rectangle with uniform noise in some of the images.

    Unlike `keras.layers.RandomErasing` it draws from a stateless seed, so that a resumed run and other processes see
    the same.

    Args:
        image: `(height, width, channels)` on the 0-255 scale.
        seed: of the draws.
        probability: of erasing.
        area: smallest and largest fraction of the image's area.
        ratio: smallest and largest width over height.

    Returns:
        float32 of the same shape.

    Source: Zhong et al., arXiv 1708.04896.
    """
    chance, place, noise = tf.unstack(tf.random.split(seed, 3))
    image = tf.cast(image, tf.float32)
    top, left, height, width = tf.unstack(inception_crop(tf.shape(image), place, area, ratio))
    rows, columns = tf.range(tf.shape(image)[0])[:, None], tf.range(tf.shape(image)[1])[None, :]
    inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    erased = inside & (tf.random.stateless_uniform((), chance) < probability)
    return tf.where(erased[..., None], tf.random.stateless_uniform(tf.shape(image), noise, 0.0, 255.0), image)


def mixup(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, strength: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each image and label of a batch with those of the image at the other end of the batch.

    Unlike `keras.layers.MixUp` it draws from a stateless seed, so that a resumed run and other processes see the same.

    Args:
        images: float32 `(batch, height, width, channels)`.
        labels: float32 `(batch, classes)`.
        seed: of the draw.
        strength: alpha; the weight of the first image is drawn for the batch from Beta(alpha, alpha).

    Returns:
        Images and labels of the same shapes.

    Source: Zhang et al., arXiv 1710.09412.
    """
    weight = _beta(strength, seed)
    return weight * images + (1 - weight) * images[::-1], weight * labels + (1 - weight) * labels[::-1]


def cutmix(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, strength: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a window of the image at the other end of the batch into each; labels are weighted by area.

    Unlike `keras.layers.CutMix` it draws from a stateless seed, so that a resumed run and other processes see the same.

    Args:
        images: `(batch, height, width, channels)`.
        labels: float32 `(batch, classes)`.
        seed: of the draws.
        strength: alpha; the fraction of the area that is kept is drawn for the batch from Beta(alpha, alpha). The
            window is centered anywhere and cut off at the border, as in the source.

    Returns:
        Images and labels of the same shapes.

    Source: Yun et al., arXiv 1905.04899, algorithm 1.
    """
    area_seed, place = tf.unstack(tf.random.split(seed, 2))
    shape = tf.cast(tf.shape(images)[1:3], tf.float32)
    half = shape * tf.sqrt(1 - _beta(strength, area_seed)) / 2
    center = tf.random.stateless_uniform((2,), place) * shape
    start, end = tf.round(tf.maximum(center - half, 0)), tf.round(tf.minimum(center + half, shape))
    rows, columns = (tf.range(tf.cast(n, tf.float32)) for n in tf.unstack(shape))
    inside = ((rows >= start[0]) & (rows < end[0]))[:, None] & ((columns >= start[1]) & (columns < end[1]))
    kept = 1 - tf.reduce_prod((end - start) / shape)
    return tf.where(inside[..., None], images[::-1], images), kept * labels + (1 - kept) * labels[::-1]


def _beta(strength: float, seed: tf.Tensor) -> tf.Tensor:
    """A draw from Beta(strength, strength)."""
    draws = tf.random.stateless_gamma((2,), seed, strength)
    return draws[0] / tf.reduce_sum(draws)

"""Random changes to one image: pure functions of the image and a seed, the same eagerly and inside `tf.data`."""

import math

import tensorflow as tf


def random_affine(image: tf.Tensor, seed: tf.Tensor, rotate: float, zoom: float, shift: float) -> tf.Tensor:
    """Rotates, zooms and shifts about the centre, bilinear, repeating the border.

    Args:
        image: `(height, width, channels)`, uint8 or float.
        seed: `(2,)` integers; the same seed gives the same image.
        rotate: largest angle, degrees.
        zoom: factor from `1 - zoom` to `1 + zoom`.
        shift: largest shift along each axis, as a share of its length.

    Returns:
        float32 of the same shape, on the same scale.
    """
    angle, scale, down, right = tf.unstack(tf.random.stateless_uniform((4,), seed, -1.0, 1.0))
    angle, scale = angle * (rotate * math.pi / 180), 1 + scale * zoom
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    x, y = (width - 1) / 2, (height - 1) / 2
    # Output pixel to input pixel: turn about the centre (x, y), then shift.
    matrix = [
        cos, -sin, x - cos * x + sin * y + right * shift * width,
        sin, cos, y - sin * x - cos * y + down * shift * height,
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


def random_flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors `(height, width, channels)` left to right for half of the seeds."""
    return tf.image.stateless_random_flip_left_right(image, seed)

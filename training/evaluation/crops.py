"""The crops that the paper averages over at test time."""

import tensorflow as tf

from inception_v1.preprocessing import normalize
from training.data.decoding import decode_whole, resize
from training.data.pipeline import pixel_convention
from training.data.split import Split
from training.data.threads import CORES
from training.recipe import Recipe

CROP_SCALES = {10: (256,), 144: (256, 288, 320, 352)}  # shorter side for a 224 px network
LONGEST = 8  # times the shorter side; 1x1000 pixels would be 256x256000 at the paper's first scale


def crop(image: tf.Tensor, size: int, count: int) -> tf.Tensor:
    """The crops of one image.

    144: the shorter side at 256, 288, 320 and 352 pixels, the left (top), center and right (bottom) square of each, of
    each square its four corners, its center and the whole resized. 10: the corners and the center of the center square
    at 256. Then the mirror image of each. For networks of another input size than 224 all scales change with it. Of an
    image longer than 8 times its shorter side only the center of that length is used, so that memory is bounded.

    Args:
        image: float32 `(height, width, channels)`.
        size: height and width of the network's input, pixels.
        count: 10 or 144.

    Returns:
        float32 `(count, size, size, channels)`: by scale, by square, by crop; the second half mirrors the first.

    Source: arXiv 1409.4842, section 7; Krizhevsky et al. 2012, section 4.1 for the ten.
    """
    image = _center_part(image)
    crops = []
    for scale in CROP_SCALES[count]:
        side = round(scale * size / 224)
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        scaled = tf.cast(tf.round(shape * side / tf.reduce_min(shape)), tf.int32)
        resized, slack = resize(image, scaled), scaled - side  # one of the slacks is zero
        offsets = (slack * 0, slack // 2, slack) if count == 144 else (slack // 2,)
        for offset in offsets:
            square = resized[offset[0] : offset[0] + side, offset[1] : offset[1] + side]
            room = side - size
            places = ((0, 0), (0, room), (room, 0), (room, room), (room // 2, room // 2))
            crops += [square[top : top + size, left : left + size] for top, left in places]
            if count == 144:
                crops.append(resize(square, (size, size)))
    stacked = tf.clip_by_value(tf.stack(crops), 0, 255)
    return tf.ensure_shape(tf.concat([stacked, stacked[:, :, ::-1]], 0), (count, size, size, image.shape[-1]))


def _center_part(image: tf.Tensor) -> tf.Tensor:
    """The center of an image, no longer than `LONGEST` times its shorter side."""
    shape = tf.shape(image)[:2]
    part = tf.minimum(shape, LONGEST * tf.reduce_min(shape))
    top, left = tf.unstack((shape - part) // 2)
    return image[top : top + part[0], left : left + part[1]]


def crop_batches(split: Split, recipe: Recipe, count: int) -> tf.data.Dataset:
    """Batches of (float32 `(batch, count, size, size, channels)`, normalized; labels) of a split. See `crop`."""
    size, channels, stored = recipe.image_size, split.channels, split.stored_shape
    pixels = pixel_convention(recipe)
    ds = split.encoded_images().map(
        lambda encoded, label: (normalize(crop(decode_whole(encoded, channels, stored), size, count), pixels), label),
        CORES,
    )
    return ds.batch(max(1, recipe.batch_size // count)).prefetch(1)

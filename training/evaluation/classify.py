"""The classes of image files, by whatever holds a trained network."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from inception_v1 import Spec
from inception_v1.preprocessing import normalize
from training import serving_client
from training.data.decoding import decode
from training.data.image_files import warn_of_failures, why_unreadable
from training.data.pipeline import PREFETCH
from training.data.threads import CORES, without_autotuning
from training.errors import UserError
from training.evaluation.predictor import Predictor
from training.serving_client import Classes, Track, untracked
from training.trained_network import read_trained

BATCH = 64  # images


def classify(model: str | os.PathLike[str], files: Sequence[str], top: int = 5, track: Track = untracked) -> Classes:
    """Names the best classes of image files. Those that cannot be read are left out, with a warning that names them.

    Args:
        model: folder of a run, whose best model predicts, or of an export or its versions, whose SavedModel does, or a
            `.keras` file, for instance of `import_weights`.
        files: paths of JPEG, PNG, GIF, BMP or WebP images.
        top: classes an image, best first; fewer where the network has fewer.
        track: wraps the batches, of which it gets the number too, for instance to show progress.

    Returns:
        {path: [(class name, probability), ...]}. The names are numbers where the model has none.

    Raises:
        UserError: not a run, no trained model, no image asked for, `top` below 1, or no file that is an image.
    """
    if top < 1:
        raise UserError(f"Expected top to be 1 or more; Received: top={top}.")
    if not files:
        raise UserError("Expected at least one image; Received: none.")
    if exported := serving_client.newest_version(model):
        return serving_client.classify(exported, files, top, track)
    network, classes, *_ = read_trained(model)
    found: Classes = {}
    batches = track(_batches(files, network.spec), -(-len(files) // BATCH))
    for by_head, numbers in Predictor(network)(batches):
        order = np.argsort(-by_head["main"], axis=1, kind="stable")[:, :top]
        for number, row, best in zip(numbers, by_head["main"], order, strict=True):
            found[files[number]] = [(classes[i], float(row[i])) for i in best]
    warn_of_failures({file: why_unreadable(file) for file in files if file not in found}, len(files))
    return found


@tf.autograph.experimental.do_not_convert
def _batches(files: Sequence[str], spec: Spec) -> tf.data.Dataset:
    """(images for the network of `spec`, int64 numbers of their files), without the files that cannot be read."""
    size, channels = spec.input_shape[0] or 224, spec.input_shape[2]

    def read(number: tf.Tensor, file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return decode(tf.io.read_file(file), size, channels), number

    ds = tf.data.Dataset.from_tensor_slices((np.arange(len(files)), [os.fsencode(file) for file in files]))
    ds = ds.map(read, CORES).ignore_errors().batch(BATCH)
    ds = ds.map(lambda images, numbers: (normalize(images, spec.pixels), numbers), PREFETCH)
    return without_autotuning(ds.prefetch(PREFETCH))


def read_image(file: str, size: int, channels: int) -> tf.Tensor:
    """The pixels of an image file as evaluation sees them: uint8 `(size, size, channels)`.

    Raises:
        UserError: no file, or no image.
    """
    try:
        return decode(tf.io.read_file(file), size, channels)
    except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):
        raise UserError(f"Expected an image file; Received: {file!r}, which is no file.") from None
    except tf.errors.InvalidArgumentError:
        raise UserError(f"Expected a JPEG, PNG, GIF, BMP or WebP image; Received: {file!r}.") from None

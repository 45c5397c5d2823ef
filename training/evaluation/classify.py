"""The classes of image files, by whatever holds a trained network."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from inception_v1.preprocessing import normalize
from training import serving_client, transfer
from training.data.decoding import decode
from training.errors import UserError
from training.run_folder import RunFolder


def classify(model: str | os.PathLike[str], files: Sequence[str], top: int = 5) -> dict[str, list[tuple[str, float]]]:
    """Names the best classes of image files.

    Args:
        model: folder of a run, whose best model predicts, or of an export or its versions, whose SavedModel does, or a
            `.keras` file, for instance of `import_weights`.
        files: paths of JPEG, PNG, GIF, BMP or WebP images.
        top: classes an image, best first; fewer where the network has fewer.

    Returns:
        {path: [(class name, probability), ...]}. The names are numbers where the model has none.

    Raises:
        UserError: not a run, no trained model, no image asked for, `top` below 1, or a file that is missing or no
            image (named).
    """
    if top < 1:
        raise UserError(f"Expected top to be 1 or more; Received: top={top}.")
    if not files:
        raise UserError("Expected at least one image; Received: none.")
    if exported := serving_client.newest_version(model):
        return serving_client.classify(exported, files, top)
    if os.path.isfile(model):
        network = transfer.read_network(model)
        classes = network.spec.class_names or [str(number) for number in range(network.spec.classes)]
    else:
        network, classes = RunFolder(model).model(), RunFolder(model).classes()
    spec = network.spec
    size, channels = spec.input_shape[0] or 224, spec.input_shape[2]
    images = tf.stack([read_image(file, size, channels) for file in files])
    probabilities = network.classifier().predict(normalize(images, spec.pixels), verbose=0)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return {
        file: [(classes[i], float(row[i])) for i in best]
        for file, row, best in zip(files, probabilities, order, strict=True)
    }


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

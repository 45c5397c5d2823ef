"""Real images on which exports are compared, scored and calibrated."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.data.decoding import decode
from training.data.split import Split
from training.data.threads import CORES
from training.errors import UserError
from training.export.export_model import ExportModel
from training.run_folder import RunFolder
from training.run_images import load_splits

COMPARED = 64  # images that every form of the network sees before an export is done
SCORED = 2000  # images of the test split on which the accuracy of further precisions is measured
REPRESENTATIVE = 200  # images of the training split on which int8's ranges are measured


class Samples(NamedTuple):
    """Real images.

    Attributes:
        encoded: the bytes of their files.
        pixels: uint8 `(images, size, size, channels)`, as evaluation decodes them.
        labels: int64 `(images,)`, or None.
        source: where they come from.
    """

    encoded: list[bytes]
    pixels: np.ndarray
    labels: np.ndarray | None
    source: str


def comparison_samples(run: RunFolder | None, network: ExportModel, count: int) -> Samples:
    """The first readable images of a run's test split; of a file two photographs and parts of them.

    Raises:
        UserError: other classes than the run was trained on, or no readable image.
    """
    if run is None:
        return _photographs(network)
    test = load_splits(run).test
    if test.classes != run.classes():
        raise UserError(f"Expected the classes that {str(run.path)!r} was trained on; Received: others.")
    rows = list(_first_readable(test, network, count).as_numpy_iterator())
    if not rows:
        raise UserError(f"Expected readable images in {test.name!r}; Received: none.")
    encoded, pixels, labels = zip(*rows, strict=True)
    return Samples(list(encoded), np.stack(pixels), np.array(labels), f"{test.name} of {run.recipe().source}")


def representative_pixels(run: RunFolder, network: ExportModel) -> np.ndarray:
    """uint8 pixels of the training split."""
    train = load_splits(run).train
    return np.stack([row[1] for row in _first_readable(train, network, REPRESENTATIVE).as_numpy_iterator()])


def _first_readable(split: Split, network: ExportModel, count: int) -> tf.data.Dataset:
    """(encoded, uint8 pixels, label) of the first readable images of a split."""
    stored = split.stored_shape
    ds = split.encoded_images()
    ds = ds.map(lambda e, label: (e, decode(e, network.size, network.channels, stored), label), CORES)
    return ds.ignore_errors().take(count)


def _photographs(network: ExportModel) -> Samples:
    from sklearn.datasets import load_sample_images

    images = [
        photograph[top : top + 240, left : left + 320]
        for photograph in load_sample_images().images
        for top in (0, 90, 180)
        for left in (0, 150, 300)
    ]
    encoded = [tf.io.encode_jpeg(image).numpy() for image in images]
    pixels = np.stack([decode(e, network.size, network.channels).numpy() for e in encoded])
    return Samples(encoded, pixels, None, "parts of scikit-learn's sample photographs")

"""Training images that statistics of a trained network are measured on."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from training.data.pipeline import Batches
from training.data.sources import Splits
from training.errors import UserError
from training.recipe import Recipe
from tuning.slim_settings import FEWEST_IMAGES

BATCH = 32
# What draws of training change, and statistics are measured without.
NO_AUGMENTATION: dict[str, Any] = {
    **{"paper_augment": False, "rotate": 0.0, "zoom": 0.0, "shift": 0.0, "flip": False, "erase": 0.0},
    **{"mixup": 0.0, "cutmix": 0.0},
}


class Examples(NamedTuple):
    """Images that statistics are measured on.

    Attributes:
        images: float32 `(count, height, width, channels)`, normalized as the network takes them.
        labels: int `(count,)`.
    """

    images: np.ndarray
    labels: np.ndarray


def training_examples(splits: Splits, recipe: Recipe, count: int) -> Examples:
    """Random training images as evaluation takes them. Raises UserError where there are too few for statistics."""
    if splits.train.size < FEWEST_IMAGES:
        raise UserError(
            f"Expected at least {FEWEST_IMAGES} training images to measure channels on; "
            f"Received: {splits.train.size} in {splits.train.name!r}."
        )
    plain = dataclasses.replace(recipe, **NO_AUGMENTATION, epochs=1, batch_size=BATCH)
    batches = Batches(splits.train, plain).training().take(-(-count // BATCH)).as_numpy_iterator()
    images, labels = (np.concatenate(column)[:count] for column in zip(*batches, strict=True))
    return Examples(images, labels)

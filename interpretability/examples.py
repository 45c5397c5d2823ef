"""Dataset examples: for each channel of a layer the images that activate it most, found in one pass."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from PIL import Image

from inception_v1.preprocessing import normalize
from inception_v1.spec import Spec
from interpretability.gradients import inference
from interpretability.receptive_field import Axis, receptive_field

LARGEST = 96  # pixels of a crop that is kept


class Example(NamedTuple):
    """Where a channel is most active in an image.

    Attributes:
        image: number in the order of the split.
        value: the activation.
        row: of the feature maps.
        column: likewise.
        label: of the image.
    """

    image: int
    value: float
    row: int
    column: int
    label: int


class TopExamples:
    """The best examples of each channel among all images so far; the memory depends on their number alone.

    An image counts once for a channel, by its largest activation. Of equal ones the first image, and in it the first
    place, comes first.

    Args:
        count: examples of a channel.
        fields: receptive fields along height and width of the positions.
        classes: number of classes.

    Attributes:
        best_mean: float32 `(channels,)`, the largest mean of each channel over an image.
    """

    def __init__(self, count: int, fields: tuple[Axis, Axis], classes: int) -> None:
        self._images = np.zeros(classes, int)  # of each class
        self._sums: np.ndarray | None = None  # float64 (classes, channels), of the means over each image
        self._count, self._fields, self._seen = count, fields, 0
        self._rows: np.ndarray | None = None  # float64 (channels, kept, fields of `Example`)
        self._crops: np.ndarray | None = None  # of objects (channels, kept)
        self.best_mean = np.array([], "float32")

    def update(self, maps: np.ndarray, pixels: np.ndarray, labels: np.ndarray) -> None:
        """Takes the next images into account.

        Args:
            maps: their activations, float `(batch, height, width, channels)`.
            pixels: uint8 `(batch, height, width, channels)`.
            labels: int `(batch,)`.
        """
        batch, _, width, channels = maps.shape
        flat = maps.reshape(batch, -1, channels)
        place = flat.argmax(axis=1)  # (batch, channels)
        value = np.take_along_axis(flat, place[:, None], axis=1)[:, 0]
        number = np.broadcast_to(np.arange(batch)[:, None], value.shape)
        new = np.stack([number + self._seen, value, place // width, place % width, labels[number]], axis=2)
        new = new.transpose(1, 0, 2).astype("float64")
        means = flat.mean(axis=1)
        if self._rows is None or self._crops is None or self._sums is None:
            self._rows, self._crops = np.zeros((channels, 0, 5)), np.empty((channels, 0), object)
            self._sums, self.best_mean = np.zeros((len(self._images), channels)), means.max(axis=0)
        self.best_mean = np.maximum(self.best_mean, means.max(axis=0))
        np.add.at(self._sums, labels, means.astype("float64"))
        np.add.at(self._images, labels, 1)
        rows = np.concatenate([self._rows, new], axis=1)
        best = np.argsort(-rows[:, :, 1], axis=1, kind="stable")[:, : self._count]
        kept = self._rows.shape[1]
        crops = np.empty(best.shape, object)
        for channel, rank in np.ndindex(best.shape):
            at = best[channel, rank]
            if at < kept:
                crops[channel, rank] = self._crops[channel, at]
            else:
                crops[channel, rank] = self._crop(pixels[at - kept], *rows[channel, at, 2:4].astype(int))
        self._rows, self._crops = np.take_along_axis(rows, best[:, :, None], axis=1), crops
        self._seen += batch

    def of(self, channel: int) -> list[Example]:
        """The examples of a channel, best first."""
        assert self._rows is not None
        return [
            Example(int(image), value, int(row), int(column), int(label))
            for image, value, row, column, label in self._rows[channel].tolist()
        ]

    def best_classes(self, channel: int, count: int) -> list[tuple[int, float]]:
        """The classes in whose images a channel is most active in the mean: (label, mean), best first."""
        assert self._sums is not None
        seen = np.flatnonzero(self._images)
        means = self._sums[seen, channel] / self._images[seen]
        best = np.argsort(-means, kind="stable")[:count]
        return list(zip(seen[best].tolist(), means[best].tolist(), strict=True))

    def crops(self, channel: int) -> list[np.ndarray]:
        """What the channel sees of each example: uint8 `(height, width, channels)`, at most `LARGEST` pixels."""
        assert self._crops is not None
        return list(self._crops[channel])

    def _crop(self, pixels: np.ndarray, row: int, column: int) -> np.ndarray:
        (top, bottom), (left, right) = (field.span(at) for field, at in zip(self._fields, (row, column), strict=True))
        crop = pixels[top:bottom, left:right]
        if max(crop.shape[:2]) <= LARGEST:
            return crop.copy()
        gray = crop.shape[2] == 1
        small = Image.fromarray(crop[..., 0] if gray else crop)
        small.thumbnail((LARGEST, LARGEST))
        return np.asarray(small).reshape(small.height, small.width, -1)


def top_examples(
    features: keras.Model, spec: Spec, layer: str, batches: Iterable[tuple[Any, Any]], count: int
) -> TopExamples:
    """Finds the best examples of each channel of a layer in one pass.

    Args:
        features: a model from normalized images to {layer: its activations}.
        spec: of the network.
        layer: our name.
        batches: of (images uint8 `(batch, height, width, channels)`, labels).
        count: examples of a channel.
    """
    found: TopExamples | None = None
    activations = inference(features)
    for images, labels in batches:
        pixels = np.asarray(images)
        maps = activations(normalize(pixels, spec.pixels))[layer]
        maps = maps[:, None, None] if maps.ndim == 2 else maps
        if found is None:
            found = TopExamples(count, receptive_field(spec, layer, *pixels.shape[1:3]), spec.classes)
        found.update(maps, pixels, np.asarray(labels))
    assert found is not None, "a split without images"
    return found


def strip(crops: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Crops side by side, each scaled to `size` pixels: uint8 `(size, len(crops) * size, channels)`."""
    scaled = []
    for crop in crops:
        image = Image.fromarray(crop[..., 0] if crop.shape[2] == 1 else crop)
        scaled.append(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, -1))
    return np.concatenate(scaled, axis=1)

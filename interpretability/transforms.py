"""Random changes of an image before each step, against patterns that only one exact position or scale would show.

A transform draws on the host (`draw`: arrays, the same for all images of a batch), and applies its draw on the backend
(`apply`), so that a seed reproduces an image. `size` is the size after a draw. Source: `lucid/optvis/transform.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from keras import ops

from inception_v1.errors import UserError
from interpretability import parameterizations
from interpretability.interpolation import bilinear_matrix, resample

Size = tuple[int, int]  # height, width
Draw = tuple[np.ndarray, ...]
Shape = tuple[int, int, int, int]


class Transform(Protocol):
    """What `render` takes."""

    def draw(self, generator: np.random.Generator, shape: Shape) -> Draw: ...

    def apply(self, images: Any, draw: Sequence[Any]) -> Any: ...

    def size(self, size: Size, draw: Draw) -> Size: ...


@dataclasses.dataclass(frozen=True)
class Pad:
    """Pixels around the images.

    Attributes:
        width: pixels on each side.
        mode: "constant" or "reflect".
        value: of constant pixels; None draws one from 0-1.
    """

    width: int
    mode: str = "constant"
    value: float | None = 0.5

    def draw(self, generator: np.random.Generator, shape: Shape) -> Draw:
        return () if self.value is not None else (np.array(generator.uniform(), "float32"),)

    def apply(self, images: Any, draw: Sequence[Any]) -> Any:
        sides = [(0, 0), (self.width, self.width), (self.width, self.width), (0, 0)]
        if self.mode != "constant":
            return ops.pad(images, sides, mode=self.mode)
        return ops.pad(images, sides, constant_values=draw[0] if draw else self.value)

    def size(self, size: Size, draw: Draw) -> Size:
        return (size[0] + 2 * self.width, size[1] + 2 * self.width)


@dataclasses.dataclass(frozen=True)
class Jitter:
    """A random crop.

    Attributes:
        pixels: by which height and width are smaller.
    """

    pixels: int

    def draw(self, generator: np.random.Generator, shape: Shape) -> Draw:
        return (generator.integers(0, self.pixels, 2, "int32", endpoint=True),)

    def apply(self, images: Any, draw: Sequence[Any]) -> Any:
        batch, height, width, channels = ops.shape(images)
        size = (batch, height - self.pixels, width - self.pixels, channels)
        return ops.slice(images, (0, draw[0][0], draw[0][1], 0), size)

    def size(self, size: Size, draw: Draw) -> Size:
        return (size[0] - self.pixels, size[1] - self.pixels)


class _Resampled:
    """Transforms whose draw is a matrix along each axis."""

    def apply(self, images: Any, draw: Sequence[Any]) -> Any:
        return resample(images, *draw)

    def size(self, size: Size, draw: Draw) -> Size:
        return (len(draw[0]), len(draw[1]))


@dataclasses.dataclass(frozen=True)
class RandomScale(_Resampled):
    """A resized image, bilinear.

    Attributes:
        scales: to draw from.
    """

    scales: tuple[float, ...]

    def draw(self, generator: np.random.Generator, shape: Shape) -> Draw:
        scale = np.float32(generator.choice(self.scales))
        return tuple(bilinear_matrix(n, int(scale * np.float32(n))) for n in shape[1:3])


@dataclasses.dataclass(frozen=True)
class CropOrPad(_Resampled):
    """The center at a fixed size, with zeros around it where it is smaller: the last transform of networks that take
    one size."""

    height: int
    width: int

    def draw(self, generator: np.random.Generator, shape: Shape) -> Draw:
        targets = zip(shape[1:3], (self.height, self.width), strict=True)
        return tuple(_centered(size, target) for size, target in targets)


@dataclasses.dataclass(frozen=True)
class RandomRotate:
    """A rotation about the center, nearest neighbor, with zeros where there is no pixel.

    Its gradient is exact; that of `tf.contrib.image.rotate`, which Lucid calls, rotates the gradient back instead.

    Attributes:
        degrees: to draw from. As in Lucid pi is 3.14.
    """

    degrees: tuple[float, ...]

    def draw(self, generator: np.random.Generator, shape: Shape) -> Draw:
        return rotation(float(generator.choice(self.degrees)), shape[1:3])

    def apply(self, images: Any, draw: Sequence[Any]) -> Any:
        pixels = ops.reshape(images, (images.shape[0], -1, images.shape[-1]))
        rotated = ops.take(pixels, draw[0], axis=1) * draw[1][:, None]
        return ops.reshape(rotated, ops.shape(images))

    def size(self, size: Size, draw: Draw) -> Size:
        return size


@dataclasses.dataclass(frozen=True)
class CollapseAlpha:
    """Images of four channels over random colors, so that only what the network needs becomes opaque.

    Attributes:
        sd: standard deviation of the colors' spectrum.
    """

    sd: float = 0.5

    def draw(self, generator: np.random.Generator, shape: Shape) -> Draw:
        return tuple(self._background(shape).initial(generator))

    def apply(self, images: Any, draw: Sequence[Any]) -> Any:
        alpha = images[..., 3:]
        background = ops.reshape(self._background(images.shape)(draw), (*images.shape[:3], 3))
        return alpha * images[..., :3] + (1 - alpha) * background

    def size(self, size: Size, draw: Draw) -> Size:
        return size

    def _background(self, shape: Sequence[int]) -> parameterizations.Colored:
        batch, height, width, _ = shape
        return parameterizations.image(width, height, batch, self.sd)


def standard_transforms(size: int = 128) -> list[Transform]:
    """Lucid's `standard_transforms`; below 128 pixels padding and crops are in proportion."""
    pad, first, last = (round(pixels * min(size, 128) / 128) for pixels in (12, 8, 4))
    scales = tuple(1 + (i - 5) / 50 for i in range(11))
    degrees = (*range(-10, 11), 0, 0, 0, 0, 0)
    return [Pad(pad), Jitter(first), RandomScale(scales), RandomRotate(degrees), Jitter(last)]


def draw_all(
    transforms: Sequence[Transform], generator: np.random.Generator, shape: Shape
) -> tuple[tuple[Draw, ...], Size]:
    """The draws of transforms that follow each other, and the size after the last one.

    Raises:
        UserError: nothing of the images is left.
    """
    draws, size = [], shape[1:3]
    for transform in transforms:
        draws.append(transform.draw(generator, (shape[0], *size, shape[3])))
        size = transform.size(size, draws[-1])
        if min(size) < 1:
            raise UserError(f"Expected transforms that leave pixels of {shape[1]}x{shape[2]}; Received: {transform}.")
    return tuple(draws), size


def apply_all(transforms: Sequence[Transform], images: Any, draws: Sequence[Sequence[Any]]) -> Any:
    """Images after transforms that follow each other, with these draws."""
    for transform, draw in zip(transforms, draws, strict=True):
        images = transform.apply(images, draw)
    return images


def rotation(degrees: float, size: Sequence[int]) -> Draw:
    """For each pixel of a rotated image the number of the one that it shows, int32, and whether there is one, float32.

    In float32, as the operation in TensorFlow computes it.
    """
    (height, width), one = size, np.float32(1)
    angle = np.float32(3.14) * np.float32(degrees) / np.float32(180)
    cosine, sine = np.cos(angle), np.sin(angle)
    bottom, right = np.float32(height) - one, np.float32(width) - one
    left = (right - (cosine * right - sine * bottom)) / np.float32(2)
    top = (bottom - (sine * right + cosine * bottom)) / np.float32(2)
    y, x = np.meshgrid(np.arange(height, dtype="float32"), np.arange(width, dtype="float32"), indexing="ij")
    column, row = (_rounded(place) for place in (cosine * x - sine * y + left, sine * x + cosine * y + top))
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    numbers = np.clip(row, 0, height - 1) * width + np.clip(column, 0, width - 1)
    return numbers.astype("int32").reshape(-1), inside.astype("float32").reshape(-1)


def _rounded(places: np.ndarray) -> np.ndarray:
    """Nearest integers, halves away from zero."""
    return (np.sign(places) * np.floor(np.abs(places) + np.float32(0.5))).astype(int)


def _centered(size: int, target: int) -> np.ndarray:
    matrix, crop, pad = np.zeros((target, size), "float32"), max((size - target) // 2, 0), max((target - size) // 2, 0)
    kept = np.arange(min(size, target))
    matrix[kept + pad, kept + crop] = 1
    return matrix

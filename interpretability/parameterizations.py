"""What an image is made of while it is rendered: arrays that an optimizer changes, and how they become pixels.

A parameterization has `shape` (batch, height, width, channels). `initial(generator)` draws its arrays, and calling it
with them returns the images on the backend. `image` is the usual one. Sources: `lucid/optvis/param/`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from keras import ops

from inception_v1.errors import UserError
from interpretability.colors import to_rgb
from interpretability.interpolation import bilinear_matrix

Shape = tuple[int, int, int, int]
Arrays = list[np.ndarray]

SD = 0.01  # of the first images, as Lucid's


class Parameterization(Protocol):
    """What `render` takes."""

    @property
    def shape(self) -> Shape: ...

    def initial(self, generator: np.random.Generator) -> Arrays: ...

    def __call__(self, arrays: Sequence[Any]) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The pixels themselves, unbounded.

    Attributes:
        shape: (batch, height, width, channels).
        sd: standard deviation of the initial noise.
        start: initial pixels of that shape instead of noise.
    """

    shape: Shape
    sd: float = SD
    start: np.ndarray | None = None

    def initial(self, generator: np.random.Generator) -> Arrays:
        if self.start is not None:
            return [np.broadcast_to(self.start, self.shape).astype("float32")]
        return [_noise(generator, self.shape, self.sd)]

    def __call__(self, arrays: Sequence[Any]) -> Any:
        return arrays[0]


@dataclasses.dataclass(frozen=True)
class Fourier:
    """The spectrum of the pixels, scaled so that all frequencies change at the rate at which they occur in photographs.

    Its array is float `(2, batch, channels, frequencies)`: real and imaginary parts of a two-dimensional real Fourier
    transform. Odd widths keep a frequency more, and are cropped.

    Attributes:
        shape: (batch, height, width, channels).
        sd: standard deviation of the initial spectrum.
        decay_power: of the amplitudes' decay with the frequency.
    """

    shape: Shape
    sd: float = SD
    decay_power: float = 1.0

    def initial(self, generator: np.random.Generator) -> Arrays:
        batch, *_, channels = self.shape
        return [_noise(generator, (2, batch, channels, *self._frequencies().shape), self.sd)]

    def __call__(self, arrays: Sequence[Any]) -> Any:
        _, height, width, _ = self.shape
        frequencies = self._frequencies()
        scale = np.sqrt(width * height) / np.maximum(frequencies, 1 / max(width, height)) ** self.decay_power
        spectrum = arrays[0] * (scale / 4).astype("float32")
        (cosine, sine), (real, imaginary) = _inverse_transform(height), _inverse_real_transform(frequencies.shape[1])
        by_row = ops.matmul(cosine, spectrum), ops.matmul(sine, spectrum)  # each of the real and the imaginary part
        rows = by_row[0][0] - by_row[1][1], by_row[0][1] + by_row[1][0]
        pixels = ops.matmul(rows[0], real[:, :width]) + ops.matmul(rows[1], imaginary[:, :width])
        return ops.transpose(pixels, (0, 2, 3, 1))

    def _frequencies(self) -> np.ndarray:
        """Cycles per pixel, `(height, kept)`."""
        _, height, width, _ = self.shape
        kept = width // 2 + (2 if width % 2 else 1)
        return np.hypot(np.fft.fftfreq(width)[:kept], np.fft.fftfreq(height)[:, None])


@dataclasses.dataclass(frozen=True)
class LowResolution:
    """A smaller array, resized.

    Attributes:
        shape: (batch, height, width, channels).
        underlying: shape of the array; an axis of 1 is shared, for instance by the whole batch.
        offset: pixels by which each axis is shifted; True for half a step of the smaller array.
        sd: standard deviation of the initial noise.
    """

    shape: Shape
    underlying: Shape
    offset: int | bool | Sequence[int | bool] | None = None
    sd: float = SD

    def initial(self, generator: np.random.Generator) -> Arrays:
        return [_noise(generator, self.underlying, self.sd)]

    def __call__(self, arrays: Sequence[Any]) -> Any:
        x = arrays[0]
        for axis, (size, target) in enumerate(zip(self.underlying, self.shape, strict=True)):
            if size != target:
                x = ops.moveaxis(ops.tensordot(bilinear_matrix(size, target), x, axes=[[1], [axis]]), 0, axis)
        if self.offset is None:
            return x
        shifted = ops.pad(x, [(pixels, 0) for pixels in self._offsets()], mode="symmetric")
        return ops.slice(shifted, (0, 0, 0, 0), self.shape)

    def _offsets(self) -> list[int]:
        given = self.offset if isinstance(self.offset, Sequence) else [self.offset] * len(self.shape)
        steps = zip(given, self.shape, self.underlying, strict=True)
        return [int(target / size / 2) if offset is True else int(offset or 0) for offset, target, size in steps]


@dataclasses.dataclass(frozen=True)
class LaplacianPyramid:
    """The sum of arrays of falling resolution, each half the one before.

    Attributes:
        shape: (batch, height, width, channels).
        levels: number of arrays.
        sd: standard deviation of the initial noise.
    """

    shape: Shape
    levels: int = 4
    sd: float = SD

    def initial(self, generator: np.random.Generator) -> Arrays:
        return [array for level in self._arrays() for array in level.initial(generator)]

    def __call__(self, arrays: Sequence[Any]) -> Any:
        levels = [level([array]) for level, array in zip(self._arrays(), arrays, strict=True)]
        return sum(levels[1:], levels[0])

    def _arrays(self) -> list[LowResolution]:
        batch, height, width, channels = self.shape
        sizes = [(height // 2**level, width // 2**level) for level in range(self.levels)]
        return [LowResolution(self.shape, (batch, *size, channels), sd=self.sd) for size in sizes]


@dataclasses.dataclass(frozen=True)
class Cppn:
    """A compositional pattern-producing network (Stanley 2007): a small network from positions to colors, 0-1.

    The images of a batch are the same one.

    Attributes:
        size: height and width.
        batch: number of images.
        channels: of an image.
        hidden: channels of each hidden layer.
        depth: number of hidden layers.
    """

    size: int
    batch: int = 1
    channels: int = 3
    hidden: int = 24
    depth: int = 8

    @property
    def shape(self) -> Shape:
        return (self.batch, self.size, self.size, self.channels)

    def initial(self, generator: np.random.Generator) -> Arrays:
        """A kernel and a bias by layer; the last kernel is zero, so that the first image has one color."""
        arrays, inputs = [], 2
        for _ in range(self.depth):
            arrays += [_truncated_normal(generator, inputs, self.hidden), _noise(generator, (self.hidden,), 0.1)]
            inputs = 2 * self.hidden
        return [*arrays, np.zeros((inputs, self.channels), "float32"), _noise(generator, (self.channels,), 0.1)]

    def __call__(self, arrays: Sequence[Any]) -> Any:
        line = np.linspace(-(3**0.5), 3**0.5, self.size, dtype="float32")  # of standard deviation 1
        y, x = np.meshgrid(line, line, indexing="ij")
        features: Any = np.stack([x, y], axis=-1).reshape(-1, 2)
        for kernel, bias in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
            angle = ops.arctan(ops.matmul(features, kernel) + bias)
            # Both have a mean square of 1 for normal input.
            features = ops.concatenate([angle / 0.67, ops.square(angle) / 0.6], axis=-1)
        colors = ops.sigmoid(ops.matmul(features, arrays[-2]) + arrays[-1])
        return ops.tile(ops.reshape(colors, (1, *self.shape[1:])), (self.batch, 1, 1, 1))


@dataclasses.dataclass(frozen=True)
class Colored:
    """Another parameterization's values as colors, 0-1.

    Attributes:
        values: of 3 channels, of 4 with a transparency, or of any number with `decorrelate` False.
        decorrelate: whether the first three are in the space of `colors.to_rgb`.
    """

    values: Parameterization
    decorrelate: bool = True

    @property
    def shape(self) -> Shape:
        return self.values.shape

    def initial(self, generator: np.random.Generator) -> Arrays:
        return self.values.initial(generator)

    def __call__(self, arrays: Sequence[Any]) -> Any:
        values = self.values(arrays)
        if not self.decorrelate:
            return ops.sigmoid(values)
        colors = to_rgb(values[..., :3], decorrelate=True)
        return colors if self.shape[-1] == 3 else ops.concatenate([colors, ops.sigmoid(values[..., 3:])], axis=-1)


@dataclasses.dataclass(frozen=True)
class Beside:
    """A fixed image before those of another parameterization, for objectives that compare them.

    Attributes:
        image: float `(height, width, channels)`, 0-1.
        values: of images of that shape.
    """

    image: np.ndarray
    values: Parameterization

    @property
    def shape(self) -> Shape:
        return (self.values.shape[0] + 1, *self.values.shape[1:])

    def initial(self, generator: np.random.Generator) -> Arrays:
        return self.values.initial(generator)

    def __call__(self, arrays: Sequence[Any]) -> Any:
        fixed = ops.convert_to_tensor(self.image[None], "float32")
        return ops.concatenate([fixed, self.values(arrays)], axis=0)


def image(
    width: int,
    height: int | None = None,
    batch: int = 1,
    sd: float = SD,
    decorrelate: bool = True,
    fourier: bool = True,
    alpha: bool = False,
    channels: int | None = None,
) -> Colored:
    """Images 0-1 by their spectrum and decorrelated colors, as most visualizations use them.

    Args:
        width: pixels.
        height: pixels; None for `width`.
        batch: number of images.
        sd: standard deviation of the initial spectrum or pixels.
        decorrelate: whether red, green and blue change together as they do in photographs.
        fourier: False for pixels instead of a spectrum.
        alpha: whether a fourth channel is the transparency (see `transforms.CollapseAlpha`).
        channels: of the images, which then are independent of each other: 1 for gray networks.

    Raises:
        UserError: a number below 1, or a standard deviation that is not positive.
    """
    shape = (batch, height or width, width, channels or (4 if alpha else 3))
    if min(shape) < 1 or not sd > 0:
        raise UserError(f"Expected positive sizes and a positive sd; Received: shape {shape}, sd={sd!r}.")
    values = Fourier(shape, sd) if fourier else Pixels(shape, sd)
    return Colored(values, decorrelate and channels is None)


def _noise(generator: np.random.Generator, shape: Sequence[int], sd: float) -> np.ndarray:
    return generator.normal(0, sd, shape).astype("float32")


def _truncated_normal(generator: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    """A kernel whose outputs have the variance of its inputs: normal, drawn anew beyond two standard deviations."""
    draws = generator.normal(0, 1, (inputs, outputs))
    while (beyond := np.abs(draws) > 2).any():
        draws[beyond] = generator.normal(0, 1, beyond.sum())
    return (draws * (inputs**-0.5 / 0.87962566103423978)).astype("float32")


def _inverse_transform(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Real and imaginary part `(size, size)` of the inverse Fourier transform."""
    angle = 2 * np.pi / size * (np.outer(np.arange(size), np.arange(size)) % size)
    return (np.cos(angle) / size).astype("float32"), (np.sin(angle) / size).astype("float32")


def _inverse_real_transform(kept: int) -> tuple[np.ndarray, np.ndarray]:
    """What real and imaginary parts of the `kept` frequencies of an even number of pixels are multiplied with."""
    size = 2 * (kept - 1)
    angle = 2 * np.pi / size * (np.outer(np.arange(kept), np.arange(size)) % size)
    weight = np.full((kept, 1), 2 / size)  # of a frequency and its conjugate
    weight[[0, -1]] = 1 / size
    return (weight * np.cos(angle)).astype("float32"), (-weight * np.sin(angle)).astype("float32")

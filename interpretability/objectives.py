"""What a rendered image is to maximize: functions of a network's activations, which can be added and multiplied.

`render(model, "inception_4d:12")` is short for `channel("inception_4d", 12)`. Layers have the names that
`GoogLeNet.features` takes, or Lucid's ("mixed4d"); "input" is the image itself, 0-1. Where `batch` is a number, only
that image of the batch counts. Source: `lucid/optvis/objectives.py`.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from keras import ops

from inception_v1.errors import UserError

INPUT = "input"


class Activations(Protocol):
    """What objectives are functions of.

    Attributes:
        labels: names of the network's classes in order; empty where it has none.
    """

    labels: Sequence[str]

    def __call__(self, layer: str) -> Any:
        """Float `(batch, height, width, channels)`, or of dense layers `(batch, units)`."""


class Need(NamedTuple):
    """What an objective asks of a network, checked before anything is rendered.

    Attributes:
        layer: its name.
        channels: numbers of its channels or units that must be there.
        width: number of its channels, where that must fit a vector.
        label: number or name of a class that must be there.
    """

    layer: str
    channels: tuple[int, ...] = ()
    width: int | None = None
    label: int | str | None = None


@dataclasses.dataclass(frozen=True)
class Objective:
    """A scalar to maximize. `+`, `-` and `*` take other objectives and numbers.

    Attributes:
        function: maps `Activations` to the scalar.
        needs: what the network must have.
        name: for messages.
    """

    function: Callable[[Activations], Any]
    needs: tuple[Need, ...] = ()
    name: str = "objective"

    def __call__(self, activations: Activations) -> Any:
        return self.function(activations)

    def __add__(self, other: "Objective | float") -> "Objective":
        term = _operand(other)
        return Objective(lambda a: self(a) + term(a), self.needs + term.needs, f"{self.name} + {term.name}")

    def __mul__(self, other: "Objective | float") -> "Objective":
        factor = _operand(other)
        return Objective(lambda a: self(a) * factor(a), self.needs + factor.needs, f"{self.name} * {factor.name}")

    def __neg__(self) -> "Objective":
        return -1.0 * self

    def __sub__(self, other: "Objective | float") -> "Objective":
        return self + -1.0 * _operand(other)

    def __rsub__(self, other: float) -> "Objective":
        return -self + other

    __radd__, __rmul__ = __add__, __mul__


def as_objective(value: "Objective | str") -> Objective:
    """An objective itself, or that of a text such as "inception_4d:12".

    Raises:
        UserError: another text.
    """
    if isinstance(value, Objective):
        return value
    found = re.fullmatch(r"\s*(\w+)\s*:\s*(\d+)\s*", value) if isinstance(value, str) else None
    if found is None:
        raise UserError(f"Expected an objective, or a text such as 'inception_4d:12'; Received: {value!r}.")
    return channel(found[1], int(found[2]))


def neuron(
    layer: str, channel: int, row: int | None = None, column: int | None = None, batch: int | None = None
) -> Objective:
    """One channel at one place; without `row` and `column`, Lucid's x and y, at the center."""

    def value(activations: Activations) -> Any:
        return ops.mean(_at(_feature_maps(activations, layer, batch), row, column)[..., channel])

    return Objective(value, (Need(layer, (channel,)),), f"neuron {layer}:{channel}")


def channel(layer: str, channel: int, batch: int | None = None) -> Objective:
    """The mean of one channel."""

    def value(activations: Activations) -> Any:
        return ops.mean(_feature_maps(activations, layer, batch)[..., channel])

    return Objective(value, (Need(layer, (channel,)),), f"{layer}:{channel}")


def channels(layer: str, numbers: Any) -> Objective:
    """The mean of another channel for each image of the batch, summed: the images do not influence each other.

    Args:
        layer: its name.
        numbers: integers `(batch,)`, also a tensor.
    """

    def value(activations: Activations) -> Any:
        maps = _feature_maps(activations, layer)
        chosen = ops.one_hot(numbers, maps.shape[-1], dtype=maps.dtype)
        return ops.sum(ops.mean(maps, axis=(1, 2)) * chosen)

    known = tuple(map(int, numbers)) if isinstance(numbers, Sequence | np.ndarray) else ()
    return Objective(value, (Need(layer, known),), f"channels of {layer}")


def directions(layer: str, vectors: Any, cossim_pow: float = 0, center: bool = False) -> Objective:
    """As `direction`, with another vector for each image of the batch, summed: the images do not influence each other.

    Args:
        layer: its name.
        vectors: float `(batch, channels)`, also a tensor.
        cossim_pow: as of `direction`.
        center: whether only the place at the center counts, as in `direction_neuron`.
    """

    def value(activations: Activations) -> Any:
        maps = _feature_maps(activations, layer)
        chosen = _at(maps, None, None) if center else maps
        return ops.sum(ops.mean(_dots(chosen, vectors[:, None, None], cossim_pow), axis=(1, 2)))

    return Objective(value, (Need(layer, width=vectors.shape[-1]),), f"directions of {layer}")


def direction(layer: str, vector: np.ndarray, cossim_pow: float = 0, batch: int | None = None) -> Objective:
    """The mean over all places of the dot product with a vector `(channels,)`.

    With `cossim_pow` p each product counts as much as its cosine, but at least 0.1, to the power of p.
    """
    vector = np.asarray(vector, "float32")

    def value(activations: Activations) -> Any:
        return _dot_cossim(_feature_maps(activations, layer, batch), vector, cossim_pow)

    return Objective(value, (Need(layer, width=vector.shape[-1]),), f"direction of {layer}")


def direction_neuron(
    layer: str,
    vector: np.ndarray,
    row: int | None = None,
    column: int | None = None,
    cossim_pow: float = 0,
    batch: int | None = None,
) -> Objective:
    """As `direction`, at one place; as in `neuron` the center if none is given."""
    vector = np.asarray(vector, "float32")

    def value(activations: Activations) -> Any:
        return _dot_cossim(_at(_feature_maps(activations, layer, batch), row, column), vector, cossim_pow)

    return Objective(value, (Need(layer, width=vector.shape[-1]),), f"direction of a neuron of {layer}")


def tensor_direction(layer: str, tensor: np.ndarray, cossim_pow: float = 0, batch: int | None = None) -> Objective:
    """As `direction`, with another vector for each place about the center: `(height, width, channels)`, or a batch of
    them."""
    tensor = np.asarray(tensor, "float32")
    if tensor.ndim not in (3, 4):
        raise UserError(f"Expected a tensor (height, width, channels); Received: shape {tensor.shape}.")
    tensor = tensor[None] if tensor.ndim == 3 else tensor

    def value(activations: Activations) -> Any:
        maps = _feature_maps(activations, layer, batch)
        height, width = tensor.shape[1:3]
        count, rows, columns, width_of_layer = ops.shape(maps)
        start = (0, (rows - height) // 2, (columns - width) // 2, 0)
        return _dot_cossim(ops.slice(maps, start, (count, height, width, width_of_layer)), tensor, cossim_pow)

    return Objective(value, (Need(layer, width=tensor.shape[-1]),), f"tensor direction of {layer}")


def deepdream(layer: str, batch: int | None = None) -> Objective:
    """The mean square of all activations (Mordvintsev et al. 2015)."""
    return Objective(lambda a: ops.mean(ops.square(_chosen(a(layer), batch))), (Need(layer),), f"deepdream {layer}")


def total_variation(layer: str = INPUT, batch: int | None = None) -> Objective:
    """The sum of absolute differences between neighbors, as a penalty."""

    def value(activations: Activations) -> Any:
        x = _chosen(activations(layer), batch)
        return ops.sum(ops.abs(x[:, 1:] - x[:, :-1])) + ops.sum(ops.abs(x[:, :, 1:] - x[:, :, :-1]))

    return Objective(value, (Need(layer),), f"total variation of {layer}")


def L1(layer: str = INPUT, constant: float = 0, batch: int | None = None) -> Objective:
    """The sum of absolute differences from a constant, as a penalty."""
    return Objective(
        lambda a: ops.sum(ops.abs(_chosen(a(layer), batch) - constant)), (Need(layer),), f"L1 norm of {layer}"
    )


def L2(layer: str = INPUT, constant: float = 0, epsilon: float = 1e-6, batch: int | None = None) -> Objective:
    """The root of the sum of squared differences from a constant and `epsilon`, as a penalty."""
    return Objective(
        lambda a: ops.sqrt(epsilon + ops.sum(ops.square(_chosen(a(layer), batch) - constant))),
        (Need(layer),),
        f"L2 norm of {layer}",
    )


def blur_input_each_step() -> Objective:
    """Half the squared distance of the image from itself blurred: minus k times this blurs by k in each step (Nguyen et
    al. 2015)."""
    return Objective(lambda a: _distance_from_blurred(a(INPUT)), name="blur")


def blur_alpha_each_step() -> Objective:
    """As `blur_input_each_step`, of the fourth channel."""
    return Objective(lambda a: _distance_from_blurred(a(INPUT)[..., 3:4]), name="blur of alpha")


def channel_interpolate(layer1: str, channel1: int, layer2: str, channel2: int) -> Objective:
    """From one channel, for the first image of a batch, to another one, for the last."""

    def value(activations: Activations) -> Any:
        first = ops.mean(_feature_maps(activations, layer1)[..., channel1], axis=(1, 2))
        last = ops.mean(_feature_maps(activations, layer2)[..., channel2], axis=(1, 2))
        weight = np.linspace(0, 1, first.shape[0], dtype="float32")
        return ops.sum((1 - weight) * first + weight * last)

    needs = (Need(layer1, (channel1,)), Need(layer2, (channel2,)))
    return Objective(value, needs, f"{layer1}:{channel1} to {layer2}:{channel2}")


def penalize_boundary_complexity(width: int = 20, mask: np.ndarray | None = None, color: float = 0.5) -> Objective:
    """Minus what varies within `width` pixels of the border, or where `mask` is, and differs from `color`."""

    def value(activations: Activations) -> Any:
        images = activations(INPUT)
        weight = mask
        if weight is None:
            weight = np.ones(images.shape, "float32")
            weight[:, width:-width, width:-width] = 0
        differences = ops.square(_blurred(images, 5) - images) + 0.8 * ops.square(images - color)
        return -ops.sum(differences * weight)

    return Objective(value, name="boundary complexity")


def alignment(layer: str, decay_ratio: float = 2) -> Objective:
    """Minus the mean squared distance between images that are 1 to 4 apart in the batch, each weighing `decay_ratio`
    times less than the one before."""

    def value(activations: Activations) -> Any:
        maps, total = activations(layer), 0.0
        for distance in range(1, min(5, maps.shape[0])):
            squares = ops.square(maps[distance:] - maps[:-distance])
            total += ops.sum(ops.mean(squares, axis=tuple(range(1, len(maps.shape))))) / decay_ratio**distance
        return -total

    return Objective(value, (Need(layer),), f"alignment of {layer}")


def diversity(layer: str) -> Objective:
    """The mean cosine between each image's channel correlations and those of all others: a penalty on images that are
    alike."""

    def value(activations: Activations) -> Any:
        maps = activations(layer)
        batch, channels = maps.shape[0], maps.shape[-1]
        rows = ops.reshape(maps, (batch, -1, channels))
        grams = ops.reshape(ops.matmul(ops.transpose(rows, (0, 2, 1)), rows), (batch, -1))
        grams = grams * ops.rsqrt(ops.maximum(ops.sum(ops.square(grams), axis=1, keepdims=True), 1e-10))
        cosines = ops.matmul(grams, ops.transpose(grams))
        return ops.sum(cosines * (1 - np.eye(batch, dtype="float32"))) / batch

    return Objective(value, (Need(layer),), f"diversity of {layer}")


def input_diff(image: np.ndarray) -> Objective:
    """The root of the mean squared difference from an image, 0-1."""
    image = np.asarray(image, "float32")
    return Objective(lambda a: ops.sqrt(ops.mean(ops.square(a(INPUT) - image))), name="difference from an image")


def dot_compare(layer: str, batch: int = 1, cossim_pow: float = 0) -> Objective:
    """The dot product of the activations of the first image and of another one, which caricatures the first.

    With `cossim_pow` p it counts as much as its quotient by the norm of the other one's, but at least 0.1, to the power
    of p. Source: `lucid/recipes/caricature.py`.
    """

    def value(activations: Activations) -> Any:
        maps = activations(layer)
        dot = ops.sum(maps[0] * maps[batch])
        if cossim_pow == 0:
            return dot
        norm = ops.sqrt(ops.maximum(ops.sum(ops.square(maps[batch])), 1e-20))
        return dot * ops.power(ops.maximum(dot / (1e-6 + norm), 0.1), cossim_pow)

    return Objective(value, (Need(layer),), f"dot product of images in {layer}")


def activation_difference(layer: str, batch: int = 1) -> Objective:
    """The mean absolute difference between the activations of the first image and of another one, as a penalty.

    Source: the content loss of Lucid's notebook of style transfer.
    """

    def value(activations: Activations) -> Any:
        maps = activations(layer)
        return ops.mean(ops.abs(maps[0] - maps[batch]))

    return Objective(value, (Need(layer),), f"difference of images in {layer}")


def class_logit(layer: str, label: int | str, batch: int | None = None) -> Objective:
    """The logit of a class, by its number or name: of "main_logits", "aux1_logits" or "aux2_logits"."""

    def value(activations: Activations) -> Any:
        number = activations.labels.index(label) if isinstance(label, str) else label
        return ops.sum(_chosen(activations(layer), batch)[:, number])

    return Objective(value, (Need(layer, label=label),), f"class {label!r} of {layer}")


def _operand(value: "Objective | float") -> Objective:
    if isinstance(value, Objective):
        return value
    if isinstance(value, str):
        return as_objective(value)
    if not isinstance(value, int | float | np.number):
        raise UserError(f"Expected an objective or a number; Received: {value!r}.")
    number = float(value)
    return Objective(lambda a: number, name=f"{number:g}")


def _chosen(x: Any, batch: int | None) -> Any:
    return x if batch is None else x[batch : batch + 1]


def _feature_maps(activations: Activations, layer: str, batch: int | None = None) -> Any:
    """`(batch, height, width, channels)`; of dense layers `(batch, 1, 1, units)`."""
    x = _chosen(activations(layer), batch)
    return x[:, None, None] if len(x.shape) == 2 else x


def _at(maps: Any, row: int | None, column: int | None) -> Any:
    batch, height, width, channels = ops.shape(maps)
    start = (0, height // 2 if row is None else row, width // 2 if column is None else column, 0)
    return ops.slice(maps, start, (batch, 1, 1, channels))


def _dot_cossim(x: Any, vector: Any, power: float) -> Any:
    return ops.mean(_dots(x, vector, power))


def _dots(x: Any, vector: Any, power: float) -> Any:
    """The product at each place, `(batch, height, width)`, times the cosine to the power."""
    dot = ops.sum(x * vector, axis=-1)
    if power == 0:
        return dot
    # Under the root a floor, since the root's gradient at zero is infinite: a place that nothing activates.
    norm = ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=-1), 1e-20))
    norm_of_vector = ops.sqrt(ops.sum(ops.square(vector), axis=-1))
    cosine = dot / (1e-4 + norm) / (1e-4 + norm_of_vector)
    return dot * ops.power(ops.maximum(cosine, 0.1), power)


def _blurred(x: Any, width: int) -> Any:
    """Each channel's weighted mean over a square: half as much weight on its border as inside."""
    window = np.full((width, width), 0.5, "float32")
    window[1:-1, 1:-1] = 1
    kernel = window[..., None, None] * np.eye(x.shape[-1], dtype="float32")
    sums, weights = (ops.conv(part, kernel, padding="same", data_format="channels_last") for part in (x, x * 0 + 1))
    return sums / weights


def _distance_from_blurred(x: Any) -> Any:
    return 0.5 * ops.sum(ops.square(x - ops.stop_gradient(_blurred(x, 3))))

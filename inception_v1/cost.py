"""Parameters and multiply-accumulates of a network, layer by layer, without building it."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from inception_v1.errors import UserError
from inception_v1.spec import (
    AUX_CONV,
    AUX_DENSE,
    AUX_GRID,
    AUX_TAPS,
    BatchNorm,
    Conv,
    Inception,
    LayerSpec,
    MaxPool,
    ResponseNorm,
    Spec,
    Widths,
)

Shape = tuple[int, int, int]  # height, width, channels


class CostRow(NamedTuple):
    """One line of the paper's Table 1.

    Attributes:
        name: layer, block or head.
        kind: "convolution", "max pool", "LRN", "inception", "main head" or "auxiliary head".
        kernel: window and stride ("7x7/2"), "" where there is none.
        output: (height, width, channels) after it; (1, 1, classes) for heads.
        widths: of an Inception block, else None.
        params: trainable parameters.
        state: non-trainable parameters (running statistics).
        macs: multiply-accumulates of convolutions and dense layers for one image.
    """

    name: str
    kind: str
    kernel: str
    output: Shape
    widths: Widths | None
    params: int
    state: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """The rows of a network and their sums. `trainable + state == params`, as Keras' `count_params()` counts."""

    rows: tuple[CostRow, ...]

    @property
    def trainable(self) -> int:
        return sum(row.params for row in self.rows)

    @property
    def state(self) -> int:
        return sum(row.state for row in self.rows)

    @property
    def params(self) -> int:
        return self.trainable + self.state

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    def without_aux(self) -> "Cost":
        """The cost of `classifier()`: at inference the auxiliary heads are dropped."""
        return Cost(tuple(row for row in self.rows if row.kind != "auxiliary head"))


class _Count(NamedTuple):
    params: int = 0
    state: int = 0
    macs: int = 0

    def __add__(self, other: tuple[Any, ...]) -> "_Count":
        return _Count(*(a + b for a, b in zip(self, other, strict=True)))


def cost(spec: Spec) -> Cost:
    """Counts the parameters and multiply-accumulates of `spec`.

    Args:
        spec: a `Spec`, or a model with one (`GoogLeNet`). Its height and width must be fixed.

    Returns:
        A `Cost`: one row per line of Table 1, and totals.

    Raises:
        UserError: height or width is None.
    """
    spec = getattr(spec, "spec", spec)
    height, width, channels = spec.input_shape
    if height is None or width is None:
        raise UserError(f"Expected a fixed height and width to count; Received: input_shape={spec.input_shape}.")
    shape: Shape = (height, width, channels)
    rows, outputs = [], {}
    for layer in spec.trunk():
        shape, count = _through(spec, layer, shape)
        outputs[layer.name] = shape
        rows.append(_row(spec, layer, shape, count))
    if spec.has_aux:
        rows += [_aux_head(spec, head, outputs[f"inception_{block}"]) for head, block in AUX_TAPS.items()]
    if spec.include_top:
        count = _dense(shape[2], spec.classes)
        rows.append(CostRow("main", "main head", "", (1, 1, spec.classes), None, *count))
    return Cost(tuple(rows))


def classifier_cost(
    spec: Spec, widths: Mapping[str, Widths], stem_widths: Sequence[Any] | None = None
) -> tuple[Any, Any]:
    """Counts `cost(spec).without_aux()` under other widths of the blocks, for many networks at once.

    Args:
        spec: all but the widths.
        widths: of every block; each number may be an integer array with one element a network.
        stem_widths: of the stem's convolutions, likewise; None for those of `spec`.

    Returns:
        Parameters and multiply-accumulates, arrays where the widths are.
    """
    height, width, channels = spec.input_shape
    shape, total = (typing.cast(int, height), typing.cast(int, width), channels), _Count()
    for layer in spec.trunk(widths, stem_widths):
        shape, count = _through(spec, layer, shape)
        total += count
    if spec.include_top:
        total += _dense(shape[2], spec.classes)
    return total.params + total.state, total.macs


def _through(spec: Spec, layer: LayerSpec, shape: Shape) -> tuple[Shape, _Count]:
    """Shape after `layer`, and what it costs."""
    height, width, channels = shape
    if isinstance(layer, ResponseNorm):
        return shape, _Count()
    if isinstance(layer, Inception):
        total, concatenated = _Count(), 0
        for branch in layer.branches:
            end = shape
            for inner in branch:
                end, count = _through(spec, inner, end)
                total += count
            concatenated += end[2]
        return (height, width, concatenated), total
    height, width = (typing.cast(int, spec.out_size(layer, size)) for size in (height, width))
    if isinstance(layer, MaxPool):
        return (height, width, channels), _Count()
    return (height, width, layer.filters), _conv(spec, layer, channels, height * width)


def _conv(spec: Spec, layer: Conv, channels: int, positions: int) -> _Count:
    kernel = layer.kernel**2 * channels * layer.filters
    params, state = kernel + layer.filters * spec.family.conv_bias, 0
    if isinstance(spec.norm, BatchNorm):
        params += layer.filters * (1 + spec.norm.scale)
        state = layer.filters * 2
    return _Count(params, state, kernel * positions)


def _dense(inputs: int, outputs: int) -> _Count:
    return _Count(inputs * outputs + outputs, 0, inputs * outputs)


def _aux_head(spec: Spec, head: str, shape: Shape) -> CostRow:
    height, width, channels = shape
    grid = spec.aux_grid(height, width) or (AUX_GRID, AUX_GRID)
    conv, dense = spec.scaled(AUX_CONV), spec.scaled(AUX_DENSE)
    count = (
        _conv(spec, Conv("", conv, 1), channels, grid[0] * grid[1])
        + _dense(grid[0] * grid[1] * conv, dense)
        + _dense(dense, spec.classes)
    )
    return CostRow(head, "auxiliary head", "", (1, 1, spec.classes), None, *count)


def _row(spec: Spec, layer: LayerSpec, output: Shape, count: _Count) -> CostRow:
    match layer:
        case Conv():
            kind, kernel = "convolution", f"{layer.kernel}x{layer.kernel}/{layer.stride}"
        case MaxPool():
            kind, kernel = "max pool", f"{layer.size}x{layer.size}/{layer.stride}"
        case ResponseNorm():
            kind, kernel = "LRN", ""
        case Inception():
            kind, kernel = "inception", ""
    widths = spec.block_widths()[layer.name.removeprefix("inception_")] if isinstance(layer, Inception) else None
    return CostRow(layer.name, kind, kernel, output, widths, *count)

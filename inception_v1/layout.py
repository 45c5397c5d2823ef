"""Where a drawing of a network has its layers: from left to right, every box as tall as its layer has channels."""

from collections.abc import Sequence
from typing import NamedTuple

from inception_v1.spec import BRANCHES, Conv, Inception, LayerSpec, MaxPool, Spec

TALLEST = 1000  # height of the layer with the most channels
BOX, POOL, NORM, GAP = 30, 12, 8, 8  # widths of boxes, and between layers
OUTER, BLOCK = 32, 76  # where the outputs of a block's branches are, and the next layer


class Box(NamedTuple):
    """A convolution, pool or normalization of the drawing.

    Attributes:
        layer: its name.
        branch: one of `BRANCHES` within a block, else "".
        is_reduction: whether it reduces the channels for another convolution of its branch.
        x: of its left side.
        low: of its lower side.
        width: in the same unit.
        height: likewise.
        channels: that it returns.
    """

    layer: str
    branch: str
    is_reduction: bool
    x: float
    low: float
    width: float
    height: float
    channels: int


class Column(NamedTuple):
    """A layer of the body with its boxes.

    Attributes:
        layer: the layer.
        x: where it begins.
        end: where the next one begins.
        height: of its output.
        channels: of its output.
        size: height and width of its feature maps; None where unknown.
        boxes: the layer's one, or those of a block's branches.
    """

    layer: LayerSpec
    x: float
    end: float
    height: float
    channels: int
    size: tuple[int | None, int | None]
    boxes: tuple[Box, ...]


def columns(spec: Spec) -> list[Column]:
    """The body of a network, from left to right."""
    counts, channels = [], spec.input_shape[2]
    for layer in spec.trunk():
        channels = _outputs(layer, channels)
        counts.append(channels)
    unit, x, size = TALLEST / max(counts), 0.0, spec.input_shape[:2]
    found: list[Column] = []
    for layer, channels in zip(spec.trunk(), counts, strict=True):
        size = (spec.out_size(layer, size[0]), spec.out_size(layer, size[1]))
        inputs = found[-1].channels if found else spec.input_shape[2]
        if isinstance(layer, Inception):
            boxes, end = _boxes_of_block(layer, x, inputs, unit), x + BLOCK
        else:
            width = {Conv: BOX, MaxPool: POOL}.get(type(layer), NORM)
            boxes, end = (Box(layer.name, "", False, x, 0, width, channels * unit, channels),), x + width + GAP
        found.append(Column(layer, x, end, channels * unit, channels, size, boxes))
        x = end
    return found


def _boxes_of_block(block: Inception, x: float, inputs: int, unit: float) -> tuple[Box, ...]:
    """The reductions of a block's branches on the left, their outputs on the right, each stacked from below."""
    boxes, low_inner, low_outer = [], 0.0, 0.0
    for branch, name in zip(block.branches, BRANCHES, strict=True):
        *before, _ = branch
        for conv in before:
            if isinstance(conv, Conv) and conv.kernel == 1:  # of two 3x3 in place of a 5x5 the last one is drawn
                boxes.append(Box(conv.name, name, True, x, low_inner, BOX, conv.filters * unit, conv.filters))
                low_inner += conv.filters * unit
        channels = _outputs_of_branch(branch, inputs)
        boxes.append(Box(branch[-1].name, name, False, x + OUTER, low_outer, BOX, channels * unit, channels))
        low_outer += channels * unit
    return tuple(boxes)


def _outputs(layer: LayerSpec, inputs: int) -> int:
    """Channels of a layer's output."""
    if isinstance(layer, Inception):
        return sum(_outputs_of_branch(branch, inputs) for branch in layer.branches)
    return layer.filters if isinstance(layer, Conv) else inputs


def _outputs_of_branch(branch: Sequence[Conv | MaxPool], inputs: int) -> int:
    """Channels of a branch's output; a pool without projection passes its input on."""
    convs = [layer for layer in branch if isinstance(layer, Conv)]
    return convs[-1].filters if convs else inputs

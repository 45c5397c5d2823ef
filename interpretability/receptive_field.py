"""Which pixels a position of a layer's feature maps sees."""

from typing import NamedTuple

from inception_v1.errors import UserError
from inception_v1.spec import Conv, Inception, LayerSpec, MaxPool, Spec

Span = tuple[int, int]  # first pixel, and one after the last


class Axis(NamedTuple):
    """The receptive fields of a layer's positions along one axis of the image.

    Attributes:
        start: first pixel that position 0 sees; negative in the padding.
        size: pixels that a position sees.
        stride: pixels between two positions.
        positions: of the layer.
        pixels: of the image.
    """

    start: int
    size: int
    stride: int
    positions: int
    pixels: int

    def span(self, position: int) -> Span:
        """The pixels of the image that a position sees."""
        first = self.start + position * self.stride
        return max(first, 0), min(first + self.size, self.pixels)


def receptive_field(spec: Spec, layer: str, height: int, width: int) -> tuple[Axis, Axis]:
    """The receptive fields along height and width, of a layer of the body or of a head, whose positions see it all.

    Args:
        spec: of the network.
        layer: as `GoogLeNet.features` takes it.
        height: of the image, pixels.
        width: likewise.

    Raises:
        UserError: no such layer in the body.
    """
    name = layer.removesuffix("_pre_relu")
    if name.partition("_")[0] in spec.heads:
        return Axis(0, height, height, 1, height), Axis(0, width, width, 1, width)
    return _axis(spec, name, height), _axis(spec, name, width)


def _axis(spec: Spec, name: str, pixels: int) -> Axis:
    axis = Axis(0, 1, 1, pixels, pixels)
    for layer in spec.trunk():
        if not isinstance(layer, Inception):
            axis = _after(spec, layer, axis)
        else:
            ends = []
            for branch in layer.branches:
                end = axis
                for inner in branch:
                    end = _after(spec, inner, end)
                    if inner.name == name:
                        return end
                ends.append(end)
            start = min(end.start for end in ends)
            axis = ends[0]._replace(start=start, size=max(end.start + end.size for end in ends) - start)
        if layer.name == name:
            return axis
    raise UserError(f"Expected a layer of the body; Received: {name!r}.")


def _after(spec: Spec, layer: LayerSpec, axis: Axis) -> Axis:
    if not isinstance(layer, Conv | MaxPool):
        return axis
    size = layer.kernel if isinstance(layer, Conv) else layer.size
    positions = spec.out_size(layer, axis.positions)
    assert positions is not None
    family = spec.family
    if layer.stride == 1:
        before = (size - 1) // 2
    elif isinstance(layer, Conv) and family.conv1_padding == "explicit":
        before = size // 2
    elif isinstance(layer, Conv) or family.pool_rounding == "same":
        before = max((positions - 1) * layer.stride + size - axis.positions, 0) // 2
    elif family.pool_rounding == "centered":
        before = size // 2
    else:  # padded after the last pixel alone
        before = 0
    return Axis(
        axis.start - before * axis.stride,
        axis.size + (size - 1) * axis.stride,
        axis.stride * layer.stride,
        positions,
        axis.pixels,
    )

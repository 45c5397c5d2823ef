"""Which layer reads whose channels, derived from a spec: what has to change together when channels are removed."""

from collections.abc import Mapping, Sequence
from typing import Any

from inception_v1.spec import AUX_TAPS, WIDTH_OF, Conv, Inception, Spec, Widths

IMAGE = ()  # what the first convolution reads: no other layer's channels


def channels(spec: Spec) -> dict[str, int]:
    """The convolutions of the body, from the image on, with the number of their output channels."""
    return {conv.name: conv.filters for row in spec.trunk() for conv in _convolutions(row)}


def sources(spec: Spec) -> dict[str, tuple[str, ...]]:
    """Which channels each layer reads.

    Returns:
        Each convolution of the body, "aux1_conv", "aux2_conv" and "main_logits", where they are, to the convolutions
        whose channels are its input channels, in the order in which they are concatenated. `IMAGE` for the first.
    """
    found: dict[str, tuple[str, ...]] = {}
    ends: tuple[str, ...] = IMAGE
    taps = {}
    for row in spec.trunk():
        branches = row.branches if isinstance(row, Inception) else ((row,),)
        joined: list[str] = []
        for branch in branches:
            end = ends
            for layer in branch:
                if isinstance(layer, Conv):  # any other layer passes the channels on
                    found[layer.name], end = end, (layer.name,)
            joined += end
        ends = taps[row.name] = tuple(joined)
    if spec.has_aux:
        found |= {f"{head}_conv": taps[f"inception_{block}"] for head, block in AUX_TAPS.items()}
    return found | ({"main_logits": ends} if spec.include_top else {})


def tables(spec: Spec, widths: Mapping[str, Any]) -> tuple[dict[str, Widths], tuple[Any, ...]]:
    """Numbers of channels by convolution as `Spec` takes them.

    Args:
        spec: the network.
        widths: of every convolution that `channels` names, integers or arrays of them. Convolutions that share one
            number (the two of a double "5x5" branch) have the same.

    Returns:
        The widths of every block, and those of the stem.
    """
    blocks = {block: numbers._asdict() for block, numbers in spec.block_widths().items()}
    stem = []
    for name, width in widths.items():
        if name.startswith("inception_"):
            blocks[name[10:12]][WIDTH_OF[name[13:]]] = width
        else:
            stem.append(width)
    return {block: Widths(**numbers) for block, numbers in blocks.items()}, tuple(stem)


def convolution_widths(spec: Spec, blocks: Mapping[str, Any], stem: Sequence[Any]) -> dict[str, Any]:
    """Numbers of channels by convolution from those that a `Spec` takes: the inverse of `tables`.

    Args:
        spec: the network.
        blocks: the widths of every block; each number may be an array.
        stem: of the stem's convolutions, likewise.

    Returns:
        The widths of every convolution that `channels` names, in its order.
    """
    found, rest = {}, iter(stem)
    for name in channels(spec):
        inner = name.startswith("inception_")
        found[name] = getattr(blocks[name[10:12]], WIDTH_OF[name[13:]]) if inner else next(rest)
    return found


def narrower(spec: Spec, widths: Mapping[str, int]) -> Spec:
    """`spec` with other numbers of channels, as explicit widths; see `tables`."""
    blocks, stem = tables(spec, widths)
    return Spec(**{**spec.to_dict(), "widths": blocks, "stem_widths": stem})


def _convolutions(row: Any) -> list[Conv]:
    layers = [layer for branch in row.branches for layer in branch] if isinstance(row, Inception) else [row]
    return [layer for layer in layers if isinstance(layer, Conv)]

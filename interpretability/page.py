"""The page of a network's channels: one HTML file that needs nothing else."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from inception_v1.spec import Conv, Inception, Spec
from interpretability.image_files import webp_address
from training.report.page import render
from training.trained_network import TrainedNetwork

TEMPLATE = Path(__file__).with_name("page.html.jinja")
QUALITY = 80  # of the page's WebP images, of which a thousand at 128 pixels take about 8 MB


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the page.

    Attributes:
        name: ours.
        settings: of its images, for the page's text.
        images: {channel: file}.
        branches: {channel: name of the branch that it comes from}, "" outside the blocks.
        strips: {channel: file of its examples, side by side}.
        examples: what `example_files.read_examples` returns.
    """

    name: str
    settings: Mapping[str, Any]
    images: Mapping[int, Path]
    branches: Mapping[int, str]
    strips: Mapping[int, Path]
    examples: Mapping[str, Any]


def render_page(source: TrainedNetwork, layers: Sequence[Layer]) -> str:
    """The page as HTML. The template escapes every text."""
    shown = [
        {
            "name": layer.name,
            "settings": layer.settings,
            "split": layer.examples.get("split"),
            "count": layer.examples.get("images"),
            "channels": [_channel(layer, number) for number in layer.images],
        }
        for layer in layers
    ]
    return render(TEMPLATE, title=f"What {source.name} has learnt", layers=shown)


def _channel(layer: Layer, number: int) -> dict[str, Any]:
    examples = layer.examples.get("channels", {}).get(str(number), [])
    strip = layer.strips.get(number)
    return {
        "number": number,
        "branch": layer.branches[number],
        "image": _data(layer.images[number]),
        "examples": _data(strip) if strip and examples else None,
        "classes": [(str(name), float(value)) for _, value, _, _, name in examples],
    }


def branch_of(spec: Spec, layer: str, channel: int) -> str:
    """The branch of an Inception block that one of its channels comes from; "" for any other layer."""
    blocks = {block.name: block for block in spec.trunk() if isinstance(block, Inception)}
    block = blocks.get(layer.removesuffix("_pre_relu"))
    if block is None:
        return ""
    for branch in block.branches:
        end = branch[-1]
        if not isinstance(end, Conv):  # the naive module's pooled branch is the last one
            break
        if channel < end.filters:
            break
        channel -= end.filters
    return end.name.removeprefix(f"{block.name}_")


def _data(path: Path) -> str:
    """An image file as the address of a WebP image."""
    with Image.open(path) as image:
        return webp_address(image, QUALITY)

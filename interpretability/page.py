"""The page of a network's channels: one HTML file that needs nothing else."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from inception_v1.summary import BRANCH_COLORS
from interpretability.drawing import drawing
from interpretability.image_files import webp_address
from training.report.page import render
from training.trained_network import TrainedNetwork

log = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("page.html.jinja")
LIMIT = 30_000_000  # bytes of a page


class Size(NamedTuple):
    """How the page's WebP images are compressed.

    Attributes:
        quality: of WebP.
        pixels: that a rendered image, and an example, has at most.
    """

    quality: int
    pixels: int


# From the best one down, until a page is below the limit. A channel with 6 examples at 128 pixels takes of photographs
# 15 kB with the first and 2 kB with the last; of noise, the worst case, 39 and 2.
SIZES = (Size(80, 256), Size(60, 128), Size(50, 96), Size(30, 64), Size(30, 32))


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the page.

    Attributes:
        name: ours.
        settings: of its images, for the page's text.
        images: {channel: file}.
        branches: {branch: its channels}; empty outside the blocks.
        strips: {channel: file of its examples, side by side}.
        examples: what `example_files.read_examples` returns.
    """

    name: str
    settings: Mapping[str, Any]
    images: Mapping[int, Path]
    branches: Mapping[str, range]
    strips: Mapping[int, Path]
    examples: Mapping[str, Any]


def render_page(source: TrainedNetwork, layers: Sequence[Layer]) -> str:
    """The page as HTML, with images small enough for it to stay below `LIMIT`. The template escapes every text."""
    spec = source.model.spec
    values = {
        "title": f"What {source.name} has learnt",
        "drawing": drawing(spec, [layer.name for layer in layers]),
        "colors": BRANCH_COLORS,
    }
    text = ""
    for size in SIZES:
        text = render(TEMPLATE, **values, layers=[_layer(layer, size) for layer in layers])
        if len(text) <= LIMIT:
            return text
    log.warning("the page of so many channels has %.0f MB; --out makes another one", len(text) / 1e6)
    return text


def _layer(layer: Layer, size: Size) -> dict[str, Any]:
    parts = layer.branches or {"": range(max(layer.images, default=0) + 1)}
    numbers = list(layer.images)
    branches = {
        name: [_channel(layer, number, numbers, size) for number in numbers if number in span]
        for name, span in parts.items()
    }
    return {
        "name": layer.name,
        "settings": layer.settings,
        "split": layer.examples.get("split"),
        "count": layer.examples.get("images"),
        "channels": len(numbers),
        "branches": branches,
        "of": {name: len(span) for name, span in layer.branches.items()},
    }


def _channel(layer: Layer, number: int, numbers: Sequence[int], size: Size) -> dict[str, Any]:
    examples = layer.examples.get("channels", {}).get(str(number), [])
    strip, at = layer.strips.get(number), numbers.index(number)
    return {
        "number": number,
        "before": numbers[at - 1] if at else None,
        "after": numbers[at + 1] if at + 1 < len(numbers) else None,
        "image": _data(layer.images[number], size, size.pixels),
        "examples": _data(strip, size, size.pixels * len(examples)) if strip and examples else None,
        "count": len(examples),
        "labels": [(str(name), float(value)) for _, value, _, _, name in examples],
        "classes": [(str(name), float(mean)) for name, mean in layer.examples.get("classes", {}).get(str(number), [])],
    }


def _data(path: Path, size: Size, width: int) -> str:
    """An image file as the address of a WebP image of at most `width` pixels."""
    with Image.open(path) as image:
        image.thumbnail((width, width))
        return webp_address(image, size.quality)

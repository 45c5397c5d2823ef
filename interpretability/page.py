"""The page of a network's channels: one HTML file that needs nothing else."""

import base64
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from inception_v1.errors import UserError
from inception_v1.spec import Conv, Inception, Spec
from interpretability.source import Source

TEMPLATE = "page.html.jinja"
QUALITY = 80  # of the page's WebP images, of which a thousand at 128 pixels take about 8 MB


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the page.

    Attributes:
        name: ours.
        settings: of its images, for the page's text.
        images: {channel: file}.
        branches: {channel: name of the branch that it comes from}, "" outside the blocks.
    """

    name: str
    settings: Mapping[str, Any]
    images: Mapping[int, Path]
    branches: Mapping[int, str]


def render_page(source: Source, layers: Sequence[Layer]) -> str:
    """The page as HTML. The template escapes every text."""
    shown = [
        {
            "name": layer.name,
            "settings": layer.settings,
            "channels": [
                {"number": number, "branch": layer.branches[number], "image": _data(path)}
                for number, path in layer.images.items()
            ],
        }
        for layer in layers
    ]
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(TEMPLATE).render(title=f"What {source.name} has learnt", layers=shown)


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


def read_settings(path: Path) -> dict[str, Any]:
    """What a layer's images were made with. Raises UserError where the file is damaged."""
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Expected the settings of rendered images in {str(path)!r}; Received: {error}.") from error
    if not isinstance(settings, dict):
        raise UserError(f"Expected the settings of rendered images in {str(path)!r}; Received: other JSON.")
    return settings


def _data(path: Path) -> str:
    """An image file as the address of a WebP image."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"

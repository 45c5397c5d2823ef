"""The network's drawing as an SVG image, whose boxes lead to the layers and branches of a page."""

from collections.abc import Collection
from typing import NamedTuple

from inception_v1.layout import TALLEST, Column, columns
from inception_v1.spec import AUX_TAPS, Conv, Inception, Spec
from inception_v1.summary import HEAD, box_color

SCALE = 0.26  # of heights: the drawing is wider than high
TOP, BELOW, RIGHT = 26, 62, 60  # around the boxes
HEADS, HEAD_WIDTH, HEAD_HEIGHT = 34, 44, 18  # boxes of the auxiliary heads, below


class Shape(NamedTuple):
    """A rectangle of the drawing.

    Attributes:
        x, y, width, height: in the drawing's coordinates.
        color: its color; "" for a surface that can be clicked and is not seen.
        faint: whether it is a reduction.
        title: what a browser shows when the pointer is on it.
        href: what it leads to; "" for nothing.
    """

    x: float
    y: float
    width: float
    height: float
    color: str
    faint: bool
    title: str
    href: str


class Label(NamedTuple):
    """A text of the drawing, with its middle at `x`; `strong` of blocks and heads."""

    x: float
    y: float
    text: str
    strong: bool


class Drawing(NamedTuple):
    """Shapes and texts, and the size of the drawing."""

    width: float
    height: float
    shapes: list[Shape]
    labels: list[Label]


def drawing(spec: Spec, layers: Collection[str]) -> Drawing:
    """Draws a network from left to right, boxes as tall as their layers have channels.

    Args:
        spec: of the network.
        layers: names of those that the page has; what shows them leads to "#LAYER" or, of a branch, "#LAYER-BRANCH".
    """
    found, links = columns(spec), _Links(layers)
    base = TOP + TALLEST * SCALE
    shapes, labels, size, taps = list[Shape](), list[Label](), None, {}
    for column in found:
        layer, taps[column.layer.name] = column.layer, column.end
        if isinstance(layer, Inception):
            href = links.of(layer.name)
            shapes.append(Shape(column.x, TOP, 62, TALLEST * SCALE, "", False, layer.name, href))
            name = layer.name.removeprefix("inception_")
            labels.append(Label(column.x + 47, base - column.height * SCALE - 6, name, True))
        shapes += _boxes(column, links, base)
        if column.size != size and None not in column.size and not isinstance(layer, Inception):
            size = column.size
            x = column.x + (15 if isinstance(layer, Conv) else 6)
            labels.append(Label(x, base + 13, f"{size[0]}x{size[1]}", False))
    end = found[-1].end
    for head in spec.heads:
        tap = f"inception_{AUX_TAPS[head]}" if head in AUX_TAPS else ""
        x, y = (taps[tap] - 62, base + HEADS) if tap else (end, base - HEAD_HEIGHT)
        href = links.of_head(head)
        shapes.append(Shape(x, y, HEAD_WIDTH, HEAD_HEIGHT, HEAD, False, f"{head}: {spec.classes} classes", href))
        labels.append(Label(x + HEAD_WIDTH / 2, y + 13, head, True))
    return Drawing(end + RIGHT, base + BELOW, shapes, labels)


def _boxes(column: Column, links: "_Links", base: float) -> list[Shape]:
    """The boxes of a layer."""
    shapes = []
    for box in column.boxes:
        href = "" if box.is_reduction or not box.branch else links.of_branch(column.layer.name, box.branch)
        title = f"{column.layer.name}, {box.branch} branch" if box.branch and not box.is_reduction else box.layer
        top, color = base - (box.low + box.height) * SCALE, box_color(column.layer, box)
        place = (box.x, round(top, 1), box.width, round(box.height * SCALE, 1))
        shapes.append(
            Shape(*place, color, box.is_reduction, f"{title}: {box.channels} channels", href or links.of(box.layer))
        )
    return shapes


class _Links:
    """Where the parts of a network lead.

    Args:
        layers: names of those that the page has.
    """

    def __init__(self, layers: Collection[str]) -> None:
        self._layers = layers

    def of(self, layer: str) -> str:
        """To a layer, after its ReLU or before."""
        return next((f"#{name}" for name in (layer, f"{layer}_pre_relu") if name in self._layers), "")

    def of_branch(self, block: str, branch: str) -> str:
        """To a branch of a block."""
        to_block = self.of(block)
        return f"{to_block}-{branch}" if to_block else ""

    def of_head(self, head: str) -> str:
        """To one of a head's layers."""
        names = (f"{head}_logits", head, f"{head}_fc", f"{head}_conv")
        return next((found for name in names if (found := self.of(name))), "")

"""The page of channels: its drawing, its links, and its size."""

import types

import numpy as np
import pytest
from PIL import Image

from inception_v1 import Spec
from interpretability import page as module
from interpretability.channels import branch_spans
from interpretability.drawing import drawing
from interpretability.page import LIMIT, SIZES, Layer, render_page
from tests.helpers.pages import Page

SPEC = Spec("batchnorm", width_multiplier=0.5)


def source(spec=SPEC):
    return types.SimpleNamespace(name="net", model=types.SimpleNamespace(spec=spec))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Noise, which compresses worse than any image: a rendered image of 128 pixels, and 6 examples."""
    folder, random = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    paths = folder / "image.png", folder / "strip.png"
    for path, size in zip(paths, ((128, 128), (64, 384)), strict=True):
        Image.fromarray(random.integers(0, 256, (*size, 3), "uint8")).save(path)
    return paths


def layer(name, numbers, files):
    image, strip = files
    examples = [[0, 1.5, 0, 0, "<cat>"]] * 6
    listed = {"channels": {str(n): examples for n in numbers}, "classes": {str(n): [["<cat>", 0.25]] for n in numbers}}
    return Layer(
        name,
        {"size": 128, "steps": 512, "seed": 0},
        dict.fromkeys(numbers, image),
        branch_spans(SPEC, name),
        dict.fromkeys(numbers, strip),
        listed | {"split": "test", "images": 9},
    )


def test_the_drawing_leads_to_the_layers_of_the_page():
    drawn = drawing(SPEC, ["inception_4d", "inception_3a_5x5_reduce", "conv2_3x3", "main_logits", "aux2_fc"])
    links = [shape.href for shape in drawn.shapes if shape.href]
    assert sorted(links) == sorted(
        [
            *("#inception_4d", "#inception_3a_5x5_reduce", "#conv2_3x3", "#main_logits", "#aux2_fc"),
            *(f"#inception_4d-{branch}" for branch in ("1x1", "3x3", "5x5", "pool")),
        ]
    )
    titles = {shape.title: shape for shape in drawn.shapes}
    widths = SPEC.block_widths()["4d"]
    heights = [
        titles[f"inception_4d, {b} branch: {n} channels"].height for b, n in (("3x3", widths.conv3), ("5x5", 32))
    ]
    assert heights[0] / heights[1] == pytest.approx(widths.conv3 / 32, rel=0.02)
    assert {"3a", "5b", "112x112", "7x7", "aux1"} <= {label.text for label in drawn.labels}
    inside = [
        s for s in drawn.shapes if 0 <= s.x <= s.x + s.width <= drawn.width and 0 <= s.y <= drawn.height - s.height
    ]
    assert len(inside) == len(drawn.shapes)


def test_networks_of_any_size_are_drawn():
    drawn = drawing(Spec("plain", input_shape=(None, None, 3), aux=False, reduction=False), ["inception_4a_pre_relu"])
    assert [s.href for s in drawn.shapes if s.href][:2] == ["#inception_4a_pre_relu", "#inception_4a_pre_relu-1x1"]
    assert not [label.text for label in drawn.labels if "x" in label.text and label.text[0].isdigit()]


def test_every_link_leads_to_a_place_on_the_page(files):
    shown = [layer("inception_4d", [0, 3, 60, 200, 263], files), layer("conv2_3x3", [7], files)]
    page = Page(render_page(source(), shown))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = {attributes["href"] for _, attributes in page.tags if "href" in attributes}
    assert len(names) == len(set(names))
    assert links <= {f"#{name}" for name in names}
    assert {f"#inception_4d-{place}" for place in ("1x1", "3x3", "5x5", "pool", 0, 263)} <= links
    assert {"#inception_4d-60", "#conv2_3x3-7"} <= links
    text = " ".join(" ".join(page.texts).split())
    assert "1x1 branch: 2 of 56 channels" in text
    assert "<cat> (0.25)" in text


def test_a_page_of_every_channel_of_a_half_width_network_is_below_the_limit(files, monkeypatch):
    channels = sum(widths.conv1 + widths.conv3 + widths.conv5 + widths.pool for widths in SPEC.block_widths().values())
    assert channels == 2744
    monkeypatch.setattr(module, "SIZES", SIZES[-1:])
    few, more = (len(render_page(source(), [layer("conv2_3x3", range(count), files)])) for count in (1, 9))
    assert few + (more - few) / 8 * channels < LIMIT


def test_images_are_compressed_more_where_the_page_would_be_too_large(files, monkeypatch, caplog):
    shown = [layer("conv2_3x3", range(4), files)]
    whole = len(render_page(source(), shown))
    monkeypatch.setattr(module, "LIMIT", whole - 1)
    smaller = len(render_page(source(), shown))
    assert smaller < whole
    assert not caplog.records
    monkeypatch.setattr(module, "LIMIT", 10)
    assert len(render_page(source(), shown)) < smaller
    assert "the page of so many channels has 0 MB" in caplog.text

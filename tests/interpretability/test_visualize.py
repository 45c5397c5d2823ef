"""`googlenet visualize`: its files, its page, and a second call."""

import html.parser
import json
import re

import numpy as np
import pytest
from PIL import Image

import googlenet
from inception_v1.errors import UserError
from interpretability import visualize as module
from interpretability.page import branch_of
from interpretability.visualize import channel_numbers, visualize
from tests.helpers.networks import trained_network

SETTINGS = ["--layer", "mixed4d", "--size", "28", "--steps", "2", "--batch", "2"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "<net>.keras"
    trained_network("plain", input_shape=(32, 32, 1), stem="small").save(path)
    return path


def images(page):
    found = []

    class Page(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.extend([dict(attributes)] if tag == "img" else [])

    Page().feed(page)
    return found


def test_channels_are_rendered_once_and_stand_on_a_page(network, tmp_path, capsys, monkeypatch):
    def run(*flags):
        assert googlenet.main(["visualize", str(network), *SETTINGS, "--out", str(tmp_path), *flags]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")
        return {path.name: path.read_bytes() for path in (tmp_path / "inception_4d").glob("*.png")}

    first = run("--channels", "0-2")
    assert sorted(first) == ["0000.png", "0001.png", "0002.png"]
    with Image.open(tmp_path / "inception_4d" / "0002.png") as image:
        assert (image.mode, image.size) == ("L", (28, 28))
        assert np.asarray(image).std() > 0
    (tmp_path / "inception_4d" / "0001.png").unlink()
    rendered = []
    original = module.render_channels
    monkeypatch.setattr(module, "render_channels", lambda r, part, *a: rendered.append(part) or original(r, part, *a))
    second = run("--channels", "0,1-3")
    assert rendered == [[1, 3]]
    assert {name: second[name] for name in first} == first  # also of the channel that was rendered beside another one
    page = (tmp_path / "index.html").read_text("utf-8")
    assert [image["alt"] for image in images(page)] == [f"channel {number}" for number in range(4)]
    assert all(image["src"].startswith("data:image/webp;base64,") for image in images(page))
    assert "&lt;net&gt;" in page
    assert not re.search(r"<net>|https?:|<script|@import|url\(", re.sub(r'src="data:[^"]*"', "", page))

    with pytest.raises(UserError, match=r"Expected a new folder \(--out\).* with steps 2, not 3"):
        visualize(network, "inception_4d", "0", tmp_path, 28, steps=3)
    (tmp_path / "inception_4d" / "settings.json").write_text("[")
    with pytest.raises(UserError, match="Expected the settings of rendered images"):
        visualize(network, "inception_4d", "0", tmp_path, 28, steps=2)


def test_classes_can_be_rendered(network, tmp_path):
    visualize(network, "main_logits", "6", tmp_path, steps=1)
    settings = json.loads((tmp_path / "main_logits" / "settings.json").read_text())
    assert (settings["size"], settings["steps"], settings["seed"]) == (32, 1, 0)
    assert (tmp_path / "main_logits" / "0006.png").is_file()


def test_bad_input_is_reported_before_anything_is_written(network, tmp_path, capsys):
    out = tmp_path / "out"
    for flags, message in (
        (["--layer", "inception_4x"], "Did you mean 'inception_4"),
        (["--channels", "3-1"], "Expected channels from 0 to "),
        (["--size", "4"], "Expected images of at least"),
    ):
        assert googlenet.main(["visualize", str(network), "--out", str(out), *flags]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert googlenet.main(["visualize", str(tmp_path)]) == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "expected"), [(None, [0, 1, 2, 3]), ("2", [2]), ("1-2", [1, 2]), ("3, 0 - 1,1", [0, 1, 3])]
)
def test_channel_numbers(text, expected):
    assert channel_numbers(text, 4, "layer") == expected


@pytest.mark.parametrize(
    ("text", "message"), [("a", "Expected channels such as"), ("", "such as"), ("2-9", "2-3"), ("7", "3-3")]
)
def test_other_channel_numbers_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        channel_numbers(text, 4, "layer")


def test_channels_of_a_block_come_from_its_branches():
    from inception_v1 import Spec

    spec = Spec("paper")
    ends = {0: "1x1", 111: "1x1", 112: "3x3", 399: "3x3", 400: "5x5", 463: "5x5", 464: "pool_proj", 527: "pool_proj"}
    assert {channel: branch_of(spec, "inception_4d", channel) for channel in ends} == ends
    assert branch_of(spec, "inception_4d_pre_relu", 463) == "5x5"
    assert branch_of(spec, "conv2_3x3", 0) == branch_of(spec, "inception_4d_3x3", 0) == ""
    naive = Spec("plain", reduction=False)
    assert branch_of(naive, "inception_3a", 300) == "pool"

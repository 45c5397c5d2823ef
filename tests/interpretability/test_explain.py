"""`googlenet explain`: its files and its page."""

import re

import numpy as np
from PIL import Image

import googlenet
from interpretability.layer_figures import Figure, LayerFigures, Section
from interpretability.overlays import overlay
from tests.helpers.networks import trained_network


def test_images_are_explained_on_a_page(tmp_path, capsys, monkeypatch):
    network, out = tmp_path / "net.keras", tmp_path / "out"
    names = ["<coat>", *"bcdefg"]
    trained_network("plain", input_shape=(32, 32, 1), stem="small", class_names=names).save(network)
    files = [tmp_path / "<one>.png", tmp_path / "two.jpg"]
    for seed, file in enumerate(files):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), "uint8")).save(file)
    drawn = []  # what is rendered has tests of its own

    def draw(figures, *_):
        drawn.append(figures)
        return [[Section("Caricatures", [Figure("caricature-pool2", "<pool2>", np.zeros((8, 8, 1), "uint8"))])], []]

    monkeypatch.setattr(LayerFigures, "draw", draw)
    flags = ["--method", "cam", "occlusion", "--target", "<coat>", "--caricature", "pool2", "--out", str(out)]
    assert googlenet.main(["explain", str(network), *map(str, files), *flags]) == 0
    assert capsys.readouterr().out.strip() == str(out / "index.html")
    assert sorted(path.name for path in out.glob("*.png")) == [
        *("0-cam.png", "0-caricature-pool2.png", "0-occlusion.png", "1-cam.png", "1-occlusion.png")
    ]
    page = (out / "index.html").read_text("utf-8")
    assert page.count("<img") == 7
    assert page.count("&lt;pool2&gt;") == 2
    assert drawn == [LayerFigures(("pool2",))]
    assert page.count("Explained: &lt;coat&gt;, head main.") == 2
    assert not re.search(r"<one>|<coat>|<pool2>|https?:|<script|url\(", re.sub(r'src="data:[^"]*"', "", page))

    for arguments, message in (
        ([str(network), str(tmp_path / "none.png")], "which is no file"),
        ([str(network), str(network)], "Expected a JPEG, PNG, GIF, BMP or WebP image"),
        ([str(network), str(files[0]), "--target", "coat"], "Did you mean '<coat>'?"),
        ([str(network), str(files[0]), "--factors", "conv2_3x4"], "Did you mean 'conv2_3x3"),
        ([str(network), str(files[0]), "--head", "aux1"], "Expected one of the network's heads ['main']"),
        ([str(tmp_path), str(files[0])], "Expected the folder of a run"),
    ):
        assert googlenet.main(["explain", *arguments, "--out", str(tmp_path / "new")]) == 2
        error = capsys.readouterr().err
        assert message in error
    assert not (tmp_path / "new").exists()


def test_red_speaks_for_a_class_and_blue_against_it():
    drawn = overlay(np.full((32, 32, 1), 128, "uint8"), np.array([[1.0, -1.0], [0.0, 0.0]])).astype(int)
    assert drawn.shape == (224, 224, 3)
    (red, _, blue), (other_red, _, other_blue) = drawn[0, 0], drawn[0, -1]
    assert red > blue + 100
    assert other_blue > other_red + 80
    assert np.ptp(overlay(np.zeros((32, 32, 3), "uint8"), np.zeros((2, 2)))) == 0

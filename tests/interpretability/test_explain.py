"""`googlenet explain`: its files and its page."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

import googlenet
from interpretability import BranchExplainer
from interpretability.layer_figures import Figure, LayerFigures, Section
from interpretability.overlays import overlay
from tests.helpers.networks import trained_network
from tests.helpers.pages import check_self_contained
from tests.helpers.runs import save_run

pytestmark = pytest.mark.usefixtures("few_blocks")


@pytest.fixture
def computed(monkeypatch):
    """What `BranchExplainer` has returned."""
    found, original = [], BranchExplainer.__call__
    monkeypatch.setattr(BranchExplainer, "__call__", lambda *a: found.append(original(*a)) or found[-1])
    return found


def test_images_are_explained_on_a_page(tmp_path, capsys, computed, monkeypatch):
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
    flags = ["--method", "cam", "occlusion", "--target", "<coat>", "--ablation", "--out", str(out)]
    flags += ["--caricature", "pool2"]
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
    assert page.count("<svg") == 4
    (found,) = computed
    bars = re.findall(r"<title>(\w\w) (\w+): (\S+)</title>", page)
    rows = [values[image].ravel().tolist() for image in (0, 1) for values in (found.values, found.ablation)]
    assert [number for *_, number in bars] == [f"{value:+.3g}" for row in rows for value in row]
    assert bars[5][:2] == ("4a", "3x3")
    assert found.classes.tolist() == [0, 0]
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


def test_branches_are_tested_on_a_split(tmp_path, data_dir, capsys, computed):
    run = save_run(tmp_path / "run", data_dir, test_split="test[:70]", variant="plain", aux=False)
    out, flags = tmp_path / "out", ["--branches", "--permutations", "19", "--check"]
    assert googlenet.main(["explain", str(run), *flags, "--out", str(out)]) == 0
    number, count, page = re.match(
        r"(\d+) of (\d+) branches are specialized .*\nWith random weights \d+ of 16 .*\n(.*)", capsys.readouterr().out
    ).groups()
    with (out / "branches.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(count) == len({(row["block"], row["branch"]) for row in rows}) == 16
    significant = {(row["block"], row["branch"]) for row in rows if float(row["p_adjusted"]) < 0.05}
    assert int(number) == len(significant)
    assert min(float(row["p"]) for row in rows) == pytest.approx(1 / 20)

    own = np.concatenate([found.values for found in computed[:2]])
    labels = np.concatenate([found.classes for found in computed[:2]])
    of_four = np.concatenate([found.values for found in computed[2:22] if (found.classes == 4).all()])
    assert len(own) == len(of_four) == 70
    row = next(
        row for row in rows if [row[key] for key in ("block", "branch", "class")] == ["inception_4d", "5x5", "4"]
    )
    mean = own[labels == 4, 2, 2].mean()
    np.testing.assert_allclose(float(row["mean_contribution"]), mean, rtol=1e-4)
    np.testing.assert_allclose(float(row["mean_gain"]), mean - of_four[:, 2, 2].mean(), rtol=1e-3)
    assert int(row["images"]) == (labels == 4).sum()
    text = (out / "branches.html").read_text("utf-8")
    assert str(out / "branches.html") == page
    assert check_self_contained(text) == 1
    assert "70 images of test[:70]" in text

    capsys.readouterr()
    for flags, message in (
        ([str(run), "a.png", "--branches"], "Expected no images with --branches"),
        ([str(run), "--branches", "--target", "3"], "Expected no --target with --branches"),
        ([str(run), "a.png", "--split", "test"], "Expected no --split without --branches"),
        ([str(run), "--branches", "--head", "aux3"], "aux3"),
        ([str(run), "--branches", "--split", "no"], "no"),
        ([str(run), "--branches", "--split", "test[:1]"], "Expected images of two classes or more"),
    ):
        assert status(["explain", *flags, "--out", str(tmp_path / "new")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def status(arguments):
    try:
        return googlenet.main(arguments)
    except SystemExit as end:  # of tyro
        return end.code


def test_red_speaks_for_a_class_and_blue_against_it():
    drawn = overlay(np.full((32, 32, 1), 128, "uint8"), np.array([[1.0, -1.0], [0.0, 0.0]])).astype(int)
    assert drawn.shape == (224, 224, 3)
    (red, _, blue), (other_red, _, other_blue) = drawn[0, 0], drawn[0, -1]
    assert red > blue + 100
    assert other_blue > other_red + 80
    assert np.ptp(overlay(np.zeros((32, 32, 3), "uint8"), np.zeros((2, 2)))) == 0

"""Activation atlases: the function, the command, its files and its page."""

import functools
import importlib
import itertools
import re
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

import googlenet
from inception_v1.errors import UserError
from interpretability import AtlasSettings, atlas, atlas_files
from interpretability.activation_samples import Samples
from interpretability.atlas_files import write_atlas
from tests.helpers.images import make_folder
from tests.helpers.networks import patch_images, trained_network
from tests.helpers.runs import save_run
from training.trained_network import read_trained

pytestmark = pytest.mark.usefixtures("few_blocks")

module = importlib.import_module("interpretability.atlas")
read_once = functools.cache(read_trained)
SETTINGS = AtlasSettings(grid=2, neighbors=5, steps=2)
FLAGS = ["--layer", "main_logits", "--atlas", "--grid", "2", "--neighbors", "5", "--steps", "2"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Places activations by two channels, since UMAP takes seconds and has a test of its own, and reads a network
    once."""
    monkeypatch.setattr(atlas_files, "read_trained", read_once)
    monkeypatch.setattr(module, "umap_layout", lambda activations, *_: ranks(activations))


def ranks(activations):
    """The order of activations by the two channels that vary most."""
    chosen = activations[:, np.argsort(-activations.var(axis=0))[:2]]
    return chosen.argsort(axis=0, kind="stable").argsort(axis=0).astype("float32")


class FakeRenderer:
    """In place of `IconRenderer`: the icon of a cell has the gray of its number."""

    rendered: ClassVar[list] = []

    def __init__(self, model, layer, cells, settings, batch):
        self.settings, self.batch, self.size = settings, batch, (settings.size, settings.size, 1)

    def __call__(self, numbers, advance):
        self.rendered.append(numbers)
        return np.stack([np.full(self.size, number / 100) for number in numbers])


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    return save_run(tmp_path_factory.mktemp("runs") / "<run>", data_dir, test_split="test[:60]")


def test_an_icon_for_each_cell():
    model = trained_network("plain", input_shape=(28, 28, 1), stem="small")
    found = atlas(model, "conv2d2", np.split(patch_images(60, 28, 28, 1), 3), SETTINGS, batch=3)
    count = len(found.cells.counts)
    assert count > 1
    assert 30 < found.cells.counts.sum() <= 60
    assert found.icons.shape == (count, 28, 28, 1)
    assert found.cells.attributions.shape == (count, 7)
    assert min(np.abs(one - other).max() for one, other in zip(found.icons, found.icons[1:])) > 0.01


def test_directions_are_whitened_means():
    activations = np.random.default_rng(0).gamma(1, 1, (500, 6)).astype("float32")
    samples = Samples(activations, np.zeros((500, 0), "float32"))
    whitened, plain = (module.lay_out(samples, AtlasSettings(grid=3, whiten=whiten)) for whiten in (True, False))
    np.testing.assert_array_equal(plain.directions, plain.means)
    inverse = np.linalg.inv(activations.T @ activations / 500)
    np.testing.assert_allclose(whitened.directions, plain.means @ inverse, rtol=0, atol=1e-4)


def test_the_command_resumes_and_writes_one_page(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    folder = out / "main_logits-atlas"

    def draw(*flags):
        assert googlenet.main(["visualize", str(run), *FLAGS, "--out", str(out), *flags]) == 0
        assert capsys.readouterr().out.strip() == str(folder / "index.html")
        return {path.name: path.read_bytes() for path in folder.glob("[0-9]*.png")}

    def interrupt(renderer, numbers, advance):
        raise KeyboardInterrupt

    rendered = []
    monkeypatch.setattr(atlas_files, "IconRenderer", FakeRenderer)
    monkeypatch.setattr(FakeRenderer, "rendered", rendered)
    first = draw("--batch", "2")
    assert len(first) > 2
    assert list(itertools.chain(*rendered)) == list(range(len(first)))
    with Image.open(folder / "0000.png") as image:
        assert image.size == (32, 32)
    page = (folder / "index.html").read_text("utf-8")
    assert page.count("<img") == len(re.findall(r'src="data:image/webp;base64,', page)) == len(first)
    assert "60 images of\ndigits" in page
    assert "&lt;run&gt;" in page
    assert not re.search(r"<run>|https?:|<script|@import|url\(", re.sub(r'src="data:[^"]*"', "", page))

    (folder / "0001.png").unlink()
    monkeypatch.setattr(atlas_files, "sample_activations", None)  # what it found is there
    with monkeypatch.context() as patch:
        patch.setattr(FakeRenderer, "__call__", interrupt)
        assert googlenet.main(["visualize", str(run), *FLAGS, "--out", str(out)]) == 130
    assert draw() == first
    assert rendered[-1] == [1]

    with np.load(folder / "cells.npz") as cells:
        np.testing.assert_array_equal(cells["attributions"], cells["means"])  # of the logits themselves
    with pytest.raises(UserError, match=r"Expected a new folder \(--out\).* with seed 0, not 1"):
        write_atlas(run, "main_logits", out, AtlasSettings(2, 5, steps=2, seed=1))
    (folder / "cells.npz").write_bytes(b"PK damaged")
    with pytest.raises(UserError, match=r"Expected the cells of an atlas in .*cells.npz"):
        write_atlas(run, "main_logits", out, SETTINGS)


def test_a_network_in_a_file_takes_images_of_any_source(tmp_path, monkeypatch):
    monkeypatch.setattr(atlas_files, "IconRenderer", FakeRenderer)
    network, images = tmp_path / "net.keras", make_folder(tmp_path / "images", ("test", "train"), count=15)
    trained_network("plain", input_shape=(32, 32, 3), stem="small", include_top=False).save(network)
    page = write_atlas(network, "conv2_3x3", tmp_path / "out", SETTINGS, images=images)
    assert "<b>" not in page.read_text("utf-8")  # there are no classes
    for source, message in (
        (None, r"Expected a source of images \(--source\) for a network in a file"),
        (f"{images}x", "Expected"),
    ):
        with pytest.raises(UserError, match=message):
            write_atlas(network, "conv2_3x3", tmp_path / "new", SETTINGS, images=source)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--layer", "inception_4x"], "Did you mean 'inception_4"),
        (["--neighbors", "60"], "Received: 60 neighbors and 60 images"),
        (["--channels", "0-3"], "Expected no --channels with --atlas; Received: 0-3"),
        (["--size", "4"], "Expected icons of at least 31 pixels for this network; Received: 4"),
    ],
)
def test_bad_input_is_reported_before_anything_is_written(run, tmp_path, capsys, flags, message):
    assert googlenet.main(["visualize", str(run), *FLAGS, "--out", str(tmp_path / "new"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("changes", [{"grid": 0}, {"steps": 0}, {"min_dist": -1}, {"neighbors": 1}, {"most": 50}])
def test_numbers_out_of_range_are_refused(changes):
    with pytest.raises(UserError, match="Expected"):
        AtlasSettings(**changes).check()

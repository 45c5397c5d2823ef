"""`googlenet visualize`: its files, its page, and a second call."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest
from PIL import Image

import googlenet
from inception_v1 import GoogLeNet, Spec
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from inception_v1.spec import BLOCKS
from interpretability import example_files
from interpretability import visualize as module
from interpretability.channel_rendering import ChannelSettings
from interpretability.channels import branch_spans, channel_numbers, first_of_branches
from interpretability.example_files import read_examples
from interpretability.visualize import chosen_channels, visualize
from tests.helpers.networks import trained_network
from tests.helpers.runs import save_run
from training.data import sources
from training.data.pipeline import Batches
from training.presets import PRESETS
from training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("few_blocks")

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
    original = module.ChannelRenderer.__call__
    monkeypatch.setattr(
        module.ChannelRenderer, "__call__", lambda r, part, *a: rendered.append(part) or original(r, part, *a)
    )
    second = run("--channels", "0,1-3")
    assert rendered == [[1, 3]]
    assert {name: second[name] for name in first} == first  # also of the channel that was rendered beside another one
    page = (tmp_path / "index.html").read_text("utf-8")
    assert [image["alt"] for image in images(page)] == [f"channel {number}" for number in range(4)]
    assert all(image["src"].startswith("data:image/webp;base64,") for image in images(page))
    assert "&lt;net&gt;" in page
    assert not re.search(r"<net>|https?:|<script|@import|url\(", re.sub(r'src="data:[^"]*"', "", page))

    with pytest.raises(UserError, match=r"Expected a new folder \(--out\).* with steps 2, not 3"):
        visualize(network, "inception_4d", "0", tmp_path, ChannelSettings(28, steps=3))
    (tmp_path / "inception_4d" / "settings.json").write_text("[")
    with pytest.raises(UserError, match="Expected the settings of rendered images"):
        visualize(network, "inception_4d", "0", tmp_path, ChannelSettings(28, steps=2))


def test_images_of_a_runs_split_stand_beside_the_rendered_ones(tmp_path, data_dir, capsys, monkeypatch):
    run, out = save_run(tmp_path / "run", data_dir, test_split="test[:70]"), tmp_path / "out"
    flags = ["--layer", "inception_4a", "--channels", "0-1", "--steps", "1", "--out", str(out), "--examples", "3"]
    assert googlenet.main(["visualize", str(run), *flags]) == 0
    printed = capsys.readouterr().out
    above, channels = re.match(r"(\d) of (\d) rendered images .* than every image of the split", printed).groups()
    found = read_examples(out / "inception_4a")
    assert (found["split"], found["count"], found["images"]) == ("test[:70]", 3, 70)

    model, batches = RunFolder(run).model(), list(load_digits(data_dir, 70))
    maps = maps_of_split = np.concatenate(
        [np.asarray(model.features(["inception_4a"])(images)["inception_4a"]) for images, _ in batches]
    )
    labels = np.concatenate([labels for _, labels in batches])
    peak = maps.max(axis=(1, 2))
    for channel in (0, maps.shape[3] - 1):
        best = np.argsort(-peak[:, channel], kind="stable")[:3]
        image, value, _, _, name = (list(column) for column in zip(*found["channels"][str(channel)]))
        np.testing.assert_allclose(value, peak[best, channel], rtol=1e-4, atol=1e-6)
        assert name == [str(labels[i]) for i in image]
    rendered = [np.asarray(Image.open(out / "inception_4a" / f"000{c}.png"), "float32")[..., None] for c in (0, 1)]
    maps = np.asarray(
        model.features(["inception_4a"])(normalize(np.stack(rendered), model.spec.pixels))["inception_4a"]
    )
    means = maps.mean(axis=(1, 2))[[0, 1], [0, 1]]
    assert (int(above), int(channels)) == ((means > found["best_mean"][:2]).sum(), 2)
    mean, means = maps_of_split.mean(axis=(1, 2))[:, 1], found["classes"]["1"]
    assert [name for name, _ in means] == [str(c) for c in best_classes(mean, labels)[:3]]
    np.testing.assert_allclose(means[0][1], mean[labels == int(means[0][0])].mean(), rtol=1e-4)
    page = (out / "index.html").read_text("utf-8")
    assert f"{means[0][0]} ({means[0][1]:.3g})" in page
    assert [image["alt"] for image in images(page)][:2] == ["channel 0", "examples of channel 0"]
    assert "the 70 images of" in page
    assert "(Borowski et al., ICLR 2021)" in page

    monkeypatch.setattr(example_files, "top_examples", None)  # they are there
    monkeypatch.setattr(module, "ChannelRenderer", None)
    assert visualize(run, "inception_4a", "0-1", out, ChannelSettings(steps=1), examples=3).above == (int(above), 2)


def test_the_best_of_several_tries_is_kept():
    model = trained_network("plain", input_shape=(32, 32, 1), stem="small")
    settings = (ChannelSettings(32, 2, transforms="none", learning_rate=0.2, tries=tries) for tries in (1, 4))
    one, best = (module.ChannelRenderer(model, "conv2_3x3", 3, one)([1, 5]) for one in settings)
    features = model.features(["conv2_3x3"])
    means = [
        np.asarray(features(normalize(np.round(images * 255), "signed"))["conv2_3x3"]).mean(axis=(1, 2))[[0, 1], [1, 5]]
        for images in (one, best)
    ]
    assert (means[1] >= means[0]).all()
    assert (means[1] > means[0]).any()


def best_classes(values, labels):
    return sorted(set(labels.tolist()), key=lambda label: -values[labels == label].mean())


def load_digits(data_dir, count):
    """Batches of normalized test digits and labels, as evaluation sees them."""
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, test_split=f"test[:{count}]")
    return Batches(sources.load(recipe).test, recipe).evaluation().as_numpy_iterator()


@pytest.mark.usefixtures("all_blocks")
def test_layers_are_chosen_by_name_and_by_branch():
    model = GoogLeNet("plain", input_shape=(32, 32, 1), stem="small", width_multiplier=0.1, aux=False)
    chosen = chosen_channels(model, ["all", "mixed4d_pre_relu", "conv2_3x3"], None, 1)
    assert list(chosen)[:9] == [f"inception_{block}" for block in BLOCKS]
    assert list(chosen)[9:] == ["inception_4d_pre_relu", "conv2_3x3"]
    widths = model.spec.block_widths()["4d"]
    starts = [0, widths.conv1, widths.conv1 + widths.conv3, widths.conv1 + widths.conv3 + widths.conv5]
    assert chosen["inception_4d"] == chosen["inception_4d_pre_relu"] == starts
    assert chosen["conv2_3x3"] == [0]
    assert chosen_channels(model, "mixed4d", "3-4", None) == {"inception_4d": [3, 4]}


def test_classes_can_be_rendered(network, tmp_path):
    visualize(network, "main_logits", "6", tmp_path, ChannelSettings(steps=1))
    settings = json.loads((tmp_path / "main_logits" / "settings.json").read_text())
    assert (settings["size"], settings["steps"], settings["seed"]) == (32, 1, 0)
    assert (tmp_path / "main_logits" / "0006.png").is_file()


def test_bad_input_is_reported_before_anything_is_written(network, tmp_path, capsys):
    out = tmp_path / "out"
    for flags, message in (
        (["--layer", "inception_4x"], "Did you mean 'inception_4"),
        (["--channels", "3-1"], "Expected channels from 0 to "),
        (["--size", "4"], "Expected images of at least"),
        (["--examples", "3"], "Expected a run, whose source has the examples"),
        (["--layer", "conv2_3x3", "inception_4x"], "Did you mean 'inception_4"),
        (["--channels", "1", "--per-branch", "1"], "Expected channels or per_branch"),
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


@pytest.mark.usefixtures("all_blocks")
def test_channels_of_a_block_come_from_its_branches():
    spans = {"1x1": range(112), "3x3": range(112, 400), "5x5": range(400, 464), "pool": range(464, 528)}
    assert branch_spans(Spec("paper"), "inception_4d") == spans
    assert branch_spans(Spec("paper"), "inception_4d_pre_relu") == spans
    assert branch_spans(Spec("paper"), "conv2_3x3") == branch_spans(Spec("paper"), "inception_4d_3x3") == {}
    assert branch_spans(Spec("plain", reduction=False), "inception_3a")["pool"] == range(224, 416)
    assert first_of_branches(Spec("paper"), "inception_4d", 528, 2) == [0, 1, 112, 113, 400, 401, 464, 465]
    assert first_of_branches(Spec("paper"), "main_logits", 3, 4) == [0, 1, 2]

"""What a web export needs on this machine, and what the page's scripts compute in Node."""

import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from inception_v1.preprocessing import normalize
from tests.helpers import ROOT
from tests.helpers.browser import needs_node, needs_runtime
from tests.helpers.networks import trained_network
from training.data.decoding import center_square, resize
from training.errors import UserError
from training.export import verification
from training.export.export import export
from training.export.web import fetch, runtime, site

PAGE = ROOT / "training" / "export" / "web" / "page"
WIDE = {"width_multiplier": 0.05, "aux": False}


def in_node(script, *arguments):
    """What a script prints as JSON that imports modules of the page, by the page's folder as its first argument."""
    command = ["node", "--input-type=module", "--eval", script, str(PAGE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_probabilities_have_a_bound_of_their_own():
    near = {"logits": 1e-6, "same_class": 1.0, "probabilities": 2e-4}
    assert verification.is_within(near, verification.EXACT)
    assert not verification.is_within(near, verification.BOUNDS["web"])


def test_without_the_library_the_command_that_fetches_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "is_fetched", lambda: False)
    with pytest.raises(UserError, match=rf"Expected the files of {runtime.NAME}, which \S+ -m {fetch.__name__}"):
        export(tmp_path, tmp_path / "out", to="web")
    with pytest.raises(UserError, match="Expected 'web' among the targets with unverified"):
        export(tmp_path, tmp_path / "out", to="onnx", unverified=True)


@pytest.mark.parametrize(("printed", "found"), [("v18.1.0", "v18.1.0"), ("v16.20.0", None), ("nonsense", None)])
def test_an_old_node_counts_as_none(tmp_path, monkeypatch, printed, found):
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho {printed}\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.node_version() == found


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that "downloads" a package, which `fetch` expects, from a folder of archives."""
    content = archive({"dist/a.mjs": b"a", "dist/sub/b.js": b"b", "dist/c.map": b"c", "../../outside.js": b"d"})
    (tmp_path / "library-1.tgz").write_bytes(content)
    program = tmp_path / "npm"
    program.write_text(f'#!/bin/sh\n[ "$1 $2" = "pack library@1" ] && cp {tmp_path}/library-1.tgz .\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    checksum = base64.b64encode(hashlib.sha512(content).digest()).decode()
    package = fetch.Package("library", checksum, {"dist/": "inside", "..": "elsewhere"})
    monkeypatch.setattr(fetch, "PACKAGES", (package,))
    monkeypatch.setattr(fetch, "VERSION", "1")
    return package


def test_fetched_files_are_whole_or_absent(npm, tmp_path, monkeypatch):
    folder = tmp_path / "fetched"
    fetch.fetch(folder)
    assert fetch.is_fetched(folder)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"inside/a.mjs", "inside/b.js", "elsewhere/outside.js", "version.txt"}
    monkeypatch.setattr(fetch, "PACKAGES", (npm._replace(sha512="other"),))
    with pytest.raises(RuntimeError, match="Expected the archive of library 1 with sha512 other; Received: "):
        fetch.fetch(tmp_path / "new")
    monkeypatch.setattr(fetch, "PACKAGES", (npm._replace(name="absent"),))
    with pytest.raises(RuntimeError, match="Expected npm to download absent 1; Received: exit status 1"):
        fetch.fetch(tmp_path / "new")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="Expected npm"):
        fetch.fetch(tmp_path / "new")
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]


RESIZE = """
const [folder, inputs, side, channels, size] = process.argv.slice(1);
const { prepareImage } = await import(`${folder}/preprocess.js`);
const rgba = Uint8Array.from(Buffer.from(inputs, "base64"));
console.log(JSON.stringify([...prepareImage(rgba, +side, { channels: +channels, size: +size })]));
"""


@needs_node
@pytest.mark.parametrize(("side", "size", "channels"), [(37, 64, 3), (83, 32, 1), (81, 80, 3), (32, 32, 1), (1, 5, 3)])
def test_the_page_resizes_as_evaluation_does(side, size, channels):
    image = np.random.default_rng(side).integers(0, 256, (side, side, 4), "uint8")
    found = np.array(in_node(RESIZE, base64.b64encode(image.tobytes()).decode(), side, channels, size))
    pixels = tf.cast(image[..., :3], tf.float32)
    pixels = tf.round(tf.image.rgb_to_grayscale(pixels)) if channels == 1 else pixels
    expected = tf.saturate_cast(tf.round(resize(center_square(pixels), (size, size))), tf.uint8).numpy()
    assert np.abs(found.reshape(expected.shape) - expected.astype(int)).max() <= 1


NORMALIZE = """
const [folder, channels, mean, std] = process.argv.slice(1);
const { normalized } = await import(`${folder}/preprocess.js`);
const pixels = Uint8Array.from({ length: 12 * channels }, (_, place) => 7 * place);
const model = { channels: +channels, mean: JSON.parse(mean), std: JSON.parse(std) };
console.log(JSON.stringify([...normalized(pixels, model)]));
"""


@needs_node
@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_normalizes_as_evaluation_does(channels):
    from inception_v1.preprocessing import constants

    mean, std = constants("torch", channels)
    pixels = (7 * np.arange(12 * channels) % 256).astype("uint8").reshape(4, 3, channels)
    found = in_node(NORMALIZE, channels, json.dumps(mean.tolist()), json.dumps(std.tolist()))
    expected = normalize(pixels, "torch").transpose(2, 0, 1)
    np.testing.assert_allclose(np.reshape(found, expected.shape), expected, atol=1e-6)


@needs_runtime
@needs_node
def test_maps_add_up_to_the_logits_of_the_papers_network(tmp_path):
    """The kernel lies in the file as it is, and the main head is a mean of the last feature maps and one layer."""
    from training.export.export_model import ExportModel
    from training.export.samples import Samples

    network = ExportModel(trained_network("paper", input_shape=(64, 64, 3), **WIDE), list("abcdefg"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), "uint8")
    samples = Samples([b"", b""], pixels, None, "noise")
    site.write(tmp_path / "web", network, samples, unverified=False)
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    script = ROOT / "training" / "export" / "web" / "run_in_node.mjs"
    command = ["node", str(script), *(str(tmp_path / name) for name in ("web", "pixels", "results"))]
    subprocess.run(command, check=True, capture_output=True)
    heads, of_maps = np.fromfile(tmp_path / "results", "<f4").reshape(2, 2, 7)
    expected = network.expected(pixels)["probabilities"]
    np.testing.assert_allclose(heads, expected, atol=1e-4)
    np.testing.assert_allclose(of_maps, expected, atol=1e-4)


def test_the_page_asks_no_other_host_and_evaluates_no_text():
    for path in PAGE.iterdir():
        text = path.read_text("utf-8")
        hosts = set(re.findall(r"https?://[^\s\"')>]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not hosts, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', (PAGE / "index.html").read_text("utf-8"))[1]
    assert "default-src 'none'" in policy
    assert "'unsafe-eval'" not in policy
    assert "'unsafe-inline'" not in policy

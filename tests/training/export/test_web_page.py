"""The page of a web export in headless Chromium: what it shows of every input, and that nothing leaves its folder."""

import base64
import io
import json
import shutil
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

import googlenet
from inception_v1.atomic_files import write_json
from inception_v1.preprocessing import normalize
from tests.helpers import ROOT
from tests.helpers.browser import ISOLATED, Visit, chromium, needs_chromium, needs_node, needs_runtime, serve
from tests.helpers.images import BOMBS, READABLE, encode
from tests.helpers.runs import save_run
from training.data.decoding import decode
from training.errors import VerificationError
from training.export import export as exports
from training.export import verification
from training.export.web import runtime
from training.trained_network import read_trained

PAGE = ROOT / "training" / "export" / "web" / "page"
SIDE = 64  # pixels of the network's images, whose last feature maps have 2x2 places
MOST_BYTES = 16_000_000  # beside the model
HOSTILE_CLASS = "<img src=x onerror=\"alert('x')\">"

pytestmark = [needs_runtime, needs_node, needs_chromium]

PHOTOGRAPHS = [Image.fromarray(photograph) for photograph in load_sample_images().images]
DIGIT = np.kron(np.random.default_rng(3).integers(0, 256, (6, 7), "uint8"), np.ones((5, 5), "uint8"))

PREPARE = """async ({ data, size, channels }) => {
  const { decodedSquare } = await import("./decode.js");
  const { prepareImage } = await import("./preprocess.js");
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const { rgba, side } = await decodedSquare(new Blob([bytes]), size);
  return [...prepareImage(rgba, side, { size, channels })];
}"""
DROP = """async ([type, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const event = type === "drop" ? { dataTransfer: transfer } : { clipboardData: transfer };
  const made = type === "drop" ? new DragEvent("drop", event) : new ClipboardEvent("paste", event);
  document.dispatchEvent(made);
}"""


def orientation(value):
    """EXIF with an orientation alone."""
    return b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


def transparent(image):
    """An image whose alpha is random, and 0 in a quarter."""
    pixels = np.array(image.convert("RGBA"))
    pixels[..., 3] = np.random.default_rng(0).integers(0, 256, pixels.shape[:2])
    pixels[: len(pixels) // 2, : pixels.shape[1] // 2, 3] = 0
    return Image.fromarray(pixels)


def interlaced(image):
    """A PNG of Adam7, which Pillow cannot write, of an RGBA image: every row by another filter."""
    import zlib

    pixels, rows = np.array(image), []
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        above = None
        for number, row in enumerate(pixels[y::dy, x::dx].astype(int)):
            left = np.vstack([np.zeros((1, 4), int), row[:-1]])
            up = np.zeros_like(row) if above is None else above
            corner = np.vstack([np.zeros((1, 4), int), up[:-1]])
            guess = left + up - corner
            distance = [abs(guess - left), abs(guess - up), abs(guess - corner)]
            paeth = np.where(
                (distance[0] <= distance[1]) & (distance[0] <= distance[2]),
                left,
                np.where(distance[1] <= distance[2], up, corner),
            )
            predictions = (0 * row, left, up, (left + up) // 2, paeth)
            rows.append(bytes([number % 5]) + ((row - predictions[number % 5]) % 256).astype("uint8").tobytes())
            above = row

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", *image.size, 8, 6, 0, 0, 1)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"".join(rows))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def odd_images():
    """Files of odd sizes, whose pixels the page must have as evaluation has them."""
    first, second = PHOTOGRAPHS[0].resize((301, 200)), PHOTOGRAPHS[1].resize((97, 331))
    yield "JPEG", encode(first, "JPEG", quality=85)
    yield "JPEG, 4:4:4", encode(second, "JPEG", quality=95, subsampling=0)
    yield "JPEG, progressive", encode(first, "JPEG", quality=90, progressive=True, subsampling=1)
    yield "JPEG, gray", encode(second.convert("L"), "JPEG")
    for value in (3, 5, 6, 8):
        yield f"JPEG, turned {value}", encode(first, "JPEG", quality=92, exif=orientation(value))
    yield "PNG, turned 6", encode(second, "PNG", exif=orientation(6)[6:])
    yield "WebP, turned 7", encode(first, "WEBP", lossless=True, exif=orientation(7))
    yield "PNG", encode(second, "PNG")
    yield "PNG, transparent", encode(transparent(first), "PNG")
    yield "PNG, transparent and turned 8", encode(transparent(first), "PNG", exif=orientation(8)[6:])
    yield "PNG, transparent gray", encode(transparent(second).convert("LA"), "PNG")
    yield "PNG, transparent and interlaced", interlaced(transparent(first))
    yield "PNG, a transparent color", encode(first.quantize(64), "PNG", transparency=9)
    yield "GIF, transparent", encode(second.quantize(64), "GIF", transparency=9)
    yield from ((name, READABLE[name]) for name in ("animated gif", "animated webp", "bmp", "16 bits", "webp"))


@pytest.fixture(scope="module")
def exported_page(tmp_path_factory, data_dir):
    """See `web_page` and `verified`."""
    root, verified, verify = tmp_path_factory.mktemp("web"), [], exports.verify

    def remember(folder, *arguments):
        verified[:] = arguments[1:]
        return verify(folder, *arguments)

    run = save_run(root / "run", data_dir, test_split="test[:64]", image_size=SIDE)
    names = [HOSTILE_CLASS, *map(str, range(1, 10))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports, "verify", remember)
        card = exports.export(run, root / "page", to="web", keep_aux=True, class_names=names)
    return (run, root / "page" / "1", card), verified


@pytest.fixture(scope="module")
def web_page(exported_page):
    """A run on digits with auxiliary heads, the folder of its page, and the model card. One class name is HTML."""
    return exported_page[0]


@pytest.fixture(scope="module")
def verified(exported_page):
    """What the page was exported from, and the images on which it was compared."""
    return exported_page[1]


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(web_page):
    with serve(web_page[1] / "web") as found:
        yield found


@pytest.fixture(scope="module")
def visit(browser, address):
    with Visit(browser, address) as opened:
        yield opened


@pytest.fixture(scope="module")
def network(web_page):
    return read_trained(web_page[0]).model


def expected(network, pixels):
    """{head: probabilities} of the Keras model."""
    found = network(
        normalize(np.reshape(pixels, (1, SIDE, SIDE, 1)).astype("uint8"), network.spec.pixels), training=False
    )
    return {head: np.asarray(values)[0] for head, values in found.items()}


def class_activation_map(network, images, label):
    """That of the Keras model `(rows, columns)`, and its logit."""
    layers = [network.get_layer(name) for name in ("inception_5b", "main_logits")]
    of_layers = keras.Model(network.input, [layer.output for layer in layers])
    features, logits = of_layers(normalize(images, network.spec.pixels), training=False)
    return np.asarray(features)[0] @ np.asarray(layers[1].kernel)[:, label], float(logits[0, label])


def check_numbers(numbers, network):
    """Checks what the page found against the Keras model, of the pixels that the page says its network got."""
    for head, values in expected(network, numbers["pixels"]).items():
        np.testing.assert_allclose(numbers["heads"][head], values, atol=1e-4, err_msg=head)


def test_the_folder_holds_all_that_the_page_needs(web_page):
    _, folder, card = web_page
    page = folder / "web"
    files = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    assert {path.name for path in PAGE.iterdir()} < files
    assert {"model.onnx", "model.json", *(f"onnxruntime/{name}" for name in runtime.SHIPPED)} < files
    assert b"Microsoft" in (page / "onnxruntime" / "LICENSE.txt").read_bytes()
    sizes = {name: (page / name).stat().st_size for name in files}
    assert sum(sizes.values()) - sizes["model.onnx"] <= MOST_BYTES
    assert {f"web/{name}" for name in files} <= set(card["files"])


def test_node_gives_the_probabilities_of_the_keras_model(web_page):
    _, folder, card = web_page
    parity = card["parity"]["web"]
    assert parity["images"] == 64
    assert parity["probabilities"] < 1e-4
    assert card["formats"]["web"]["verified_in"].startswith("Node.js v")
    facts = dict(json.loads((folder / "web" / "model.json").read_text("utf-8"))["facts"])
    assert f"{parity['probabilities']:.1e} on 64 images" in facts["Compared with Keras"]
    assert str(folder.parents[1]) not in " ".join(facts.values())  # no path of this machine


def test_examples_are_test_images_of_many_classes(web_page):
    _, folder, _ = web_page
    known = json.loads((folder / "web" / "model.json").read_text("utf-8"))
    assert {example["label"] for example in known["examples"]} == set(range(10))
    assert known["drawing"] == {"pixels": 8, "paper": 0, "ink": 255}
    for example in known["examples"]:
        assert Image.open(folder / "web" / example["file"]).size == (SIDE, SIDE)


@pytest.mark.parametrize(("change", "value"), [("maps", None), ("std", [1.01])])
def test_a_page_that_computes_something_else_is_refused(web_page, verified, tmp_path, monkeypatch, change, value):
    """Its maps, since they begin at another place of the file, or its probabilities."""
    _, folder, card = web_page
    shutil.copytree(folder, tmp_path / "1")
    known = json.loads((folder / "web" / "model.json").read_text("utf-8"))
    known["maps"]["kernel"]["offset"] += 4 * (change == "maps")
    known["std"] = known["std"] if value is None else [known["std"][0] * value[0]]
    write_json(tmp_path / "1" / "web" / "model.json", known)
    monkeypatch.setattr(verification, "_first_difference", lambda *arguments: "somewhere")
    with pytest.raises(VerificationError, match=r"Expected web to agree .*probabilities within 0\.0001"):
        verification.verify(tmp_path / "1", card, *verified)


def test_without_node_a_page_is_refused_unless_it_may_stay_unverified(web_page, tmp_path, monkeypatch, capsys):
    run, out = web_page[0], tmp_path / "out"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert googlenet.main(["export", str(run), "--to", "web", "--out", str(out)]) == 2
    assert "Expected Node.js 18 or later, which verifies a web export, or --unverified" in capsys.readouterr().err
    assert not out.exists()
    assert googlenet.main(["export", str(run), "--to", "web", "--out", str(out), "--unverified"]) == 0
    assert f"python -m http.server --bind localhost --directory {out / '1' / 'web'}" in capsys.readouterr().out
    card = json.loads((out / "1" / "model_card.json").read_text("utf-8"))
    assert card["formats"]["web"]["verified_in"] is None
    facts = dict(json.loads((out / "1" / "web" / "model.json").read_text("utf-8"))["facts"])
    assert "unverified in Node.js" in facts["Compared with Keras"]


def test_pixels_are_those_of_evaluation(visit):
    images = dict(odd_images())
    assert len(images) >= 20
    for name, content in images.items():
        for size, channels in ((64, 3), (33, 1)):
            given = {"data": base64.b64encode(content).decode(), "size": size, "channels": channels}
            found = np.reshape(visit.page.evaluate(PREPARE, given), (size, size, channels))
            difference = np.abs(found - decode(tf.constant(content), size, channels).numpy().astype(int))
            assert difference.max() <= 1, name


def test_a_file_gets_the_networks_prediction_and_its_exact_map(visit, network):
    content = encode(Image.fromarray(DIGIT), "PNG")
    message = visit.give("digit.png", content)
    numbers = visit.numbers()
    pixels = decode(tf.constant(content), SIDE, 1).numpy()
    np.testing.assert_allclose(np.reshape(numbers["pixels"], pixels.shape), pixels, atol=1)
    check_numbers(numbers, network)
    best = int(np.argmax(numbers["heads"]["main"]))
    assert message == f"digit.png: {numbers['classes'][best]}, {100 * numbers['heads']['main'][best]:.2f} %"
    shown = visit.page.locator("#heads > div")
    assert shown.locator("h3").all_text_contents()[0] == "Main head"
    assert shown.count() == 3
    width = shown.first.locator(".bar").first.evaluate("bar => bar.style.width")
    assert float(width.removesuffix("%")) == pytest.approx(100 * numbers["heads"]["main"][best], rel=1e-4)
    assert numbers["map"]["label"] == best
    for label in (best, (best + 3) % 10):  # the best class, and one that is chosen
        visit.page.select_option("#class", str(label))
        found = visit.numbers()["map"]
        images = np.reshape(numbers["pixels"], (1, SIDE, SIDE, 1)).astype("uint8")
        exact, logit = class_activation_map(network, images, label)
        values = np.reshape(found["values"], (found["rows"], found["columns"]))
        np.testing.assert_allclose(values, exact, atol=1e-4 * np.abs(exact).max())
        assert found["logit"] == pytest.approx(logit, rel=1e-4)
        colors = visit.page.evaluate(
            "() => [...document.getElementById('shown').getContext('2d').getImageData(0, 0, 224, 224).data]"
        )
        corners = np.reshape(colors, (224, 224, 4)).astype(int)[::223, ::223]  # where the map is not interpolated
        assert values.shape == (2, 2)
        assert (np.sign(corners[..., 0] - corners[..., 2]) == np.sign(values)).all()
    row = shown.first.locator("button").nth(1)
    row.click()
    assert row.get_attribute("aria-pressed") == "true"
    assert visit.numbers()["map"]["label"] == int(row.get_attribute("data-label"))


def test_a_drawing_is_classified_as_the_network_sees_it(visit, network):
    visit.page.click("#clear")
    before = visit.message()
    box = visit.page.locator("#pad").bounding_box()
    points = [(0.3, 0.2), (0.7, 0.2), (0.5, 0.8)]
    mouse = visit.page.mouse
    for number, (x, y) in enumerate(points):
        mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if number == 0:
            mouse.down()
    mouse.up()
    assert visit.next_message(before).startswith("the drawing: ")
    numbers = visit.numbers()
    check_numbers(numbers, network)
    drawn = np.reshape(numbers["pixels"], (SIDE, SIDE))
    assert drawn[10:16, 24:40].min() > 150  # the upper line
    assert drawn[48:, :12].max() < 60  # paper


def test_all_works_by_keyboard(visit, network):
    page, before = visit.page, visit.message()
    page.locator("#examples-list button").first.click()  # so that the drawing's message is another one than before
    before = visit.next_message(before)
    page.click("#clear")
    page.focus("#file")
    order = []
    for _ in range(5):
        page.keyboard.press("Tab")
        order.append(page.evaluate("() => document.activeElement.id"))
    assert order == ["paste", "camera", "pad", "clear", ""]
    page.focus("#pad")
    for key in ("Space", *["ArrowDown"] * 12, "Space"):
        page.keyboard.press(key)
    assert visit.next_message(before).startswith("the drawing: ")
    drawn = np.reshape(visit.numbers()["pixels"], (SIDE, SIDE))
    assert drawn[16:36, 28:36].min() > 100
    assert drawn[:, :12].max() < 30
    example = page.locator("#examples-list button").nth(2)
    example.focus()
    before = visit.message()
    page.keyboard.press("Enter")
    assert visit.next_message(before).startswith("an example of 2: ")
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    check_numbers(visit.numbers(), network)


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_dropped_and_pasted_files_are_read(visit, way):
    content = base64.b64encode(encode(Image.fromarray(DIGIT.T), "PNG")).decode()
    before = visit.message()
    visit.page.evaluate(DROP, [way, f"by {way}.png", content])
    assert visit.next_message(before).startswith(f"by {way}.png: ")


def test_a_photograph_by_the_camera_is_read(visit):
    before = visit.message()
    visit.page.click("#camera")
    visit.page.click("#take")
    assert visit.next_message(before).startswith("the photograph: ")
    assert not visit.page.locator("#photograph").is_visible()


def test_without_a_camera_the_page_says_so(visit):
    visit.page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('no camera')); }")
    before = visit.message()
    visit.page.click("#camera")
    assert visit.next_message(before) == "Expected a camera that this page may use; Received: no camera."


BAD = {
    "a PDF": (b"%PDF-1.7\n", "Expected a JPEG, PNG, GIF, WebP or BMP image; Received: a PDF document."),
    "a truncated JPEG": (BOMBS["truncated jpeg"], "Expected a whole image; Received: a JPEG file that ends early."),
    "a truncated PNG": (BOMBS["truncated png"], "Expected a whole image; Received: a PNG file that ends early."),
    "text": (b"<html>", "Expected a JPEG, PNG, GIF, WebP or BMP image; Received: text."),
    "nothing": (b"", "Expected a JPEG, PNG, GIF, WebP or BMP image; Received: an empty file."),
    "a HEIC photograph": (
        b"\0\0\0\x18ftypheic",
        "Expected a JPEG, PNG, GIF, WebP or BMP image; Received: a HEIC image.",
    ),
    "too many pixels": (
        BOMBS["30,000 x 30,000"],
        "Expected an image of at most 8,192 x 8,192 pixels; Received: 30000 x 30000.",
    ),
    "damaged": (
        READABLE["jpeg"][:2] + READABLE["jpeg"][-2:],
        "Expected a JPEG image with pixels; Received: one without.",
    ),
}


def test_what_is_no_image_is_named_in_a_sentence(visit):
    for name, (content, sentence) in BAD.items():
        assert visit.give(f"{name}.jpg", content) == f"{name}.jpg: {sentence}"
        assert not visit.page.locator("#prediction").is_visible()
    hostile = "<img src=x onerror=alert(1)>.jpg"
    assert visit.give(hostile, b"%PDF").startswith(f"{hostile}: Expected")
    for name, content in BOMBS.items():
        assert "Expected" in visit.give(f"{name} once more", content)


def test_a_photograph_of_30_megapixels_is_scaled_and_read(visit):
    large = PHOTOGRAPHS[0].resize((6400, 4800))
    content = encode(large, "JPEG", quality=60)
    assert visit.give("large.jpg", content).startswith("large.jpg: ")
    found = np.reshape(visit.numbers()["pixels"], (SIDE, SIDE))
    expected_pixels = decode(tf.constant(content), SIDE, 1).numpy()[..., 0].astype(int)
    assert np.abs(found - expected_pixels).mean() < 2  # the browser's own scaling came first


def test_nothing_left_the_folder_and_nothing_failed(visit, address):
    """The last test of this visit: names of files and classes that are HTML were shown as well."""
    assert visit.page.locator("#class option").first.text_content() == HOSTILE_CLASS
    assert visit.page.locator("img[onerror]").count() == 0
    assert len(visit.requests) > 10
    assert {request for request in visit.requests if not request.startswith((address, "blob:"))} == set()
    assert visit.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_width_in_light_and_dark(browser, address, width, scheme, tmp_path):
    with Visit(browser, address, viewport={"width": width, "height": 800}, color_scheme=scheme) as visit:
        visit.give("digit.png", encode(Image.fromarray(DIGIT), "PNG"))
        assert visit.page.evaluate("() => document.documentElement.scrollWidth") <= width
        shot = Image.open(io.BytesIO(visit.page.screenshot(full_page=True, path=tmp_path / f"{scheme}-{width}.png")))
    corner = np.mean(shot.convert("L").getpixel((2, 2)))
    assert corner > 240 if scheme == "light" else corner < 40


def test_threads_are_used_where_the_host_isolates_the_page(browser, web_page, network):
    with serve(web_page[1] / "web", **ISOLATED) as address, Visit(browser, address) as visit:
        assert visit.page.text_content("#status").startswith("Ready: ")
        visit.give("digit.png", encode(Image.fromarray(DIGIT), "PNG"))
        numbers = visit.numbers()
        assert numbers["threads"] == min(8, visit.page.evaluate("() => navigator.hardwareConcurrency"))
        check_numbers(numbers, network)
        assert visit.errors == []


def test_what_keeps_the_page_from_starting_is_said(browser, web_page, address, tmp_path):
    without = browser.new_context()
    without.add_init_script("delete window.WebAssembly")
    page = without.new_page()
    page.goto(address)
    page.get_by_text("Expected a browser with WebAssembly; Received: one without.").wait_for()
    without.close()
    for path in (web_page[1] / "web").iterdir():
        if path.name != "model.onnx":
            (tmp_path / path.name).symlink_to(path)
    with serve(tmp_path) as empty:
        page = browser.new_page()
        page.goto(empty)
        page.get_by_text("Expected the file model.onnx beside this page; Received: status 404.").wait_for()
        page.close()
    known = json.loads((web_page[1] / "web" / "model.json").read_text("utf-8"))
    (tmp_path / "model.json").unlink()
    (tmp_path / "model.json").write_text(json.dumps(known), "utf-8")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with serve(tmp_path) as damaged:
        page = browser.new_page()
        page.goto(damaged)
        page.get_by_text("The network could not run: ").wait_for()
        page.close()

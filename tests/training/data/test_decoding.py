import io
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.helpers.images import READABLE, encode
from tests.helpers.processes import done
from training.data import decoding


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_decodes_to_its_center_square(kind, channels):
    colors = np.zeros((30, 50, 3), "uint8")
    colors[:, 10:40] = (200, 40, 90)  # the center square; red from elsewhere would show
    colors[:, :10], colors[:, 40:] = (255, 0, 0), (255, 0, 0)
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image = decoding.decode(encode(Image.fromarray(colors), kind, **options), 24, channels).numpy()
    assert (image.shape, image.dtype) == ((24, 24, channels), np.uint8)
    expected = (200, 40, 90) if channels == 3 else (0.2989 * 200 + 0.587 * 40 + 0.114 * 90,)
    np.testing.assert_allclose(image[4:-4, 4:-4].mean(axis=(0, 1)), expected, atol=3)


def test_gray_stays_unchanged_at_its_own_size():
    gray = np.random.default_rng(0).integers(0, 256, (28, 28), "uint8")
    image = decoding.decode(encode(Image.fromarray(gray), "PNG"), 28, 1).numpy()
    np.testing.assert_array_equal(image[..., 0], gray)


@pytest.mark.parametrize("kind", READABLE)
def test_every_kind_of_image_gives_the_pixels_that_pillow_decodes(kind):
    data = READABLE[kind]
    assert decoding.encoded_shape(tf.constant(data)).numpy().tolist() == [37, 53]
    pixels = decoding.decode_pixels(tf.constant(data)).numpy()
    in_pipeline = next(iter(tf.data.Dataset.from_tensors(data).map(decoding.decode_pixels))).numpy()
    np.testing.assert_array_equal(pixels, in_pipeline)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) if kind != "16 bits" else 40
    np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(expected, (37, 53, 3)), atol=0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF8",
        b"BM",
        b"\x89PNG",
        b"RIFF\x10\0\0\0WEBPVP8X",
        b"\xff\xd8\xff",
        b"not an image, but longer than any header",
        *(whole[: len(whole) // 2] for kind, whole in READABLE.items() if "animated webp" not in kind),
        encode(Image.new("1", (20_000, 20_000)), "PNG"),
        encode(Image.new("1", (20_000, 20_000)), "GIF"),
    ],
    ids=lambda data: f"{data[:12]}-{len(data)}",
)
def test_unreadable_and_huge_images_raise(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoding.decode_pixels(tf.constant(data))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [20, 30])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_images_of_a_known_shape_are_read_alike(mode, size, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), "uint8")
    data = encode(Image.fromarray(pixels).convert(mode), "PNG")
    known = (20, 30, len(mode))
    expected = decoding.decode(data, size, channels)
    np.testing.assert_array_equal(decoding.decode(data, size, channels, known), expected)
    expected = decoding.decode_whole(data, channels)
    np.testing.assert_array_equal(decoding.decode_whole(data, channels, known), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode(Image.new("RGB", (37, 53)), "PNG"), "not compatible with expected shape"),
        (encode(Image.new("RGB", (53, 37)), "PNG")[:60], "Invalid PNG data"),
        (encode(Image.new("RGB", (53, 37)), "JPEG"), "Input is empty"),
        (encode(Image.new("1", (20_000, 20_000)), "PNG"), "Input is empty"),  # without being decoded
    ],
    ids=["another shape", "truncated", "JPEG", "huge"],
)
def test_what_is_no_png_of_the_known_shape_raises(data, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decoding.pixels_of(data, (37, 53, 3))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (4095, 1), (1, 4095)])
def test_most_pngs_are_plain(mode, size):
    assert decoding.is_plain_png(encode(Image.new(mode, size), "PNG"))


@pytest.mark.parametrize(
    "data",
    [
        *(data for kind, data in READABLE.items() if kind not in ("png", "16 bits")),
        encode(Image.new("L", (4096, 1)), "PNG"),
        encode(Image.new("L", (1, 4096)), "PNG"),
        encode(Image.new("L", (9, 9)), "PNG", exif=b"Exif\0\0MM"),
        READABLE["png"][:40],
        b"",
    ],
    ids=lambda data: f"{data[:12]}-{len(data)}",
)
def test_other_images_are_no_plain_pngs(data):
    assert not decoding.is_plain_png(data)


def test_nothing_fails_in_a_graph_of_its_own():
    """Else one unreadable image would at times cancel the whole dataset (see `graph_of_its_own`)."""
    functions = decoding.decode_pixels.get_concrete_function().graph.as_graph_def().library.function
    apart = [function for function in functions if function.attr["_noinline"].b]
    names = {function.signature.name.removeprefix("__inference_").rstrip("_0123456789") for function in apart}
    assert names == {"_announced", "_is_still_webp", "_read", "_turn", "first_frame"}
    within = [*apart]
    for function in within:
        called = {value.func.name for node in function.node_def for value in node.attr.values()}
        within += [inner for inner in functions if inner.signature.name in called and inner not in within]
    operations = {node.op for function in within for node in function.node_def}
    assert "DecodeRaw" in operations
    assert not {name for name in operations if "Jpeg" in name or "Png" in name or "Image" in name or name == "Assert"}


def test_a_small_screen_does_not_hide_a_large_frame():
    data = bytearray(encode(Image.new("1", (20_000, 20_000)), "GIF"))
    data[6:10] = (8).to_bytes(2, "little") * 2
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoding.decode_pixels(tf.constant(bytes(data)))


def test_extreme_shapes_decode():
    for size in ((1000, 1), (1, 1000), (1, 1)):
        encoded = tf.constant(encode(Image.new("RGB", size, (9, 99, 200)), "PNG"))
        assert decoding.decode(encoded, 32, 3).shape == (32, 32, 3)


def test_random_bytes_give_pixels_or_an_error():
    """Runs in a process of its own, since a crash would end it."""
    code = """
import numpy as np, tensorflow as tf
from tests.helpers.images import READABLE
from training.data import decoding, orientation
apart = decoding._announced, decoding._is_still_webp, decoding.first_frame, orientation._read
random, outcomes = np.random.default_rng(0), {"pixels": 0, "error": 0}
decode = tf.function(decoding.decode_pixels, input_signature=[tf.TensorSpec((), tf.string)])
for data in READABLE.values():
    for _ in range(40):
        changed = bytearray(data)
        for place in random.integers(0, min(len(data), random.choice([64, len(data)])), random.integers(1, 6)):
            changed[place] = random.integers(256)
        for graph in apart:  # none of them ever fails
            graph(bytes(changed))
        try:
            outcomes["pixels" if decode(bytes(changed)).shape[-1] == 3 else "wrong"] += 1
        except tf.errors.OpError:
            outcomes["error"] += 1
print(outcomes)
assert min(outcomes.values()) > 20, outcomes
"""
    done([sys.executable, "-c", code])


def test_memory_follows_the_first_frame_and_not_the_animation(tmp_path):
    """60 frames of 3,000 x 3,000 pixels take 540 MB unpacked, in a file of half a megabyte."""
    frames = [Image.new("P", (3000, 3000), shade) for shade in range(60)]
    path = tmp_path / "bomb.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    code = f"""
import resource, tensorflow as tf
from training.data import decoding
small = tf.constant({READABLE["gif"]!r})
decoding.decode_pixels(small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert decoding.decode_pixels(tf.io.read_file({str(path)!r})).shape == (3000, 3000, 3)
megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
assert megabytes < 150, megabytes
"""
    done([sys.executable, "-c", code])

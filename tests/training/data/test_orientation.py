"""Every image is upright as Pillow's `exif_transpose` has it, whatever its file's EXIF holds."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from tests.helpers.images import READABLE, encode
from training.data import augment, decoding
from training.data.orientation import MAX_SEGMENTS, orientation
from training.export.savedmodel import decode_batch

PHOTOGRAPHS = [Image.fromarray(photograph) for photograph in load_sample_images().images]
OPTIONS = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}
decode_pixels = tf.function(decoding.decode_pixels, input_signature=[tf.TensorSpec((), tf.string)])
decode_window = tf.function(
    augment.decode_window, input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((2,), tf.int32)]
)


def tiff(value, big=False, tag=0x0112, kind=3, offset=8, count=2):
    """The TIFF file that EXIF is, with an orientation as its second entry."""
    order = ">" if big else "<"
    header = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}I", offset)
    entries = struct.pack(f"{order}HHII", 0x010F, 2, 4, 0) + struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0)
    return header + struct.pack(f"{order}H", count) + entries + bytes(4)


def segment(marker, content, length=None):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2 if length is None else length) + content


def jpeg(*segments, size=(48, 33)):
    """A JPEG with these segments after its start, where Pillow has put a JFIF segment."""
    data = encode(PHOTOGRAPHS[0].resize(size), "JPEG", **OPTIONS["JPEG"])
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + b"".join(segments) + data[20:]


def png(exif, name=b"eXIf", length=None):
    data = encode(PHOTOGRAPHS[0].resize((48, 33)), "PNG")
    return data[:33] + struct.pack(">I", len(exif) if length is None else length) + name + exif + bytes(4) + data[33:]


def by_pillow(data):
    """Pillow's pixels, turned by the EXIF that it reads."""
    stored = Image.open(io.BytesIO(data)).convert("RGB")
    stored.getexif().update(Image.open(io.BytesIO(data)).getexif())
    return np.asarray(ImageOps.exif_transpose(stored))


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
XMP = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
EXIF = b"Exif\0\0"


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("size", [(301, 200), (64, 97)])
def test_every_orientation_is_undone_as_pillow_does(kind, size):
    for value in range(10):  # 0 and 9 mean nothing
        photograph = PHOTOGRAPHS[value % 2].resize(size)
        data = encode(photograph, kind, exif=EXIF + tiff(value, big=value % 3 == 0), **OPTIONS[kind])
        np.testing.assert_array_equal(decode_pixels(data), by_pillow(data), err_msg=f"orientation {value}")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "before", [(), (JFIF,), (JFIF, XMP), (XMP, segment(0xE2, bytes(5000))), (segment(0xFE, b"a"),)]
)
def test_exif_is_found_behind_other_segments(before, big):
    data = jpeg(*before, segment(0xE1, EXIF + tiff(6, big)))
    assert orientation(tf.constant(data)) == 6
    np.testing.assert_array_equal(decode_pixels(data), by_pillow(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_training_crop_is_a_window_of_the_upright_image(kind):
    for value in range(1, 9):
        data = encode(PHOTOGRAPHS[1].resize((97, 120)), kind, exif=EXIF + tiff(value), **OPTIONS[kind])
        whole = by_pillow(data)
        for number in range(4):
            seed = tf.constant([value, number])
            window = augment.inception_crop(tf.constant(whole.shape), seed)
            expected = augment.window_of(whole, window).astype(int)
            cropped = decode_window(data, seed).numpy().astype(int)
            assert cropped.shape == expected.shape
            assert np.abs(cropped - expected).mean() <= (3 if kind == "JPEG" else 0)  # JPEG: the fast transform


def test_an_export_decodes_upright():
    photograph = PHOTOGRAPHS[0].resize((90, 60))
    turned = photograph.transpose(Image.Transpose.ROTATE_90)
    encoded = [encode(photograph, "PNG"), encode(turned, "PNG", exif=EXIF + tiff(6))]
    images, status = decode_batch(tf.constant(encoded), 32, 3)
    assert set(status.numpy()) == {b"ok"}
    np.testing.assert_array_equal(images[1], images[0])


@pytest.mark.parametrize("kind", READABLE)
def test_without_exif_nothing_changes(kind):
    if "animated webp" not in kind:  # which TensorFlow does not decode
        if kind in ("jpeg", "CMYK"):
            expected = tf.io.decode_jpeg(READABLE[kind], channels=3, dct_method="INTEGER_ACCURATE")
        else:  # TensorFlow refuses a transparent WebP in three channels
            channels = 4 if kind.startswith("transparent") else 3
            expected = tf.io.decode_image(READABLE[kind], channels=channels, expand_animations=False)[..., :3]
        np.testing.assert_array_equal(decode_pixels(READABLE[kind]), expected)
    assert orientation(tf.constant(READABLE[kind])) == 1


LYING = {
    "cut off in the header": jpeg(segment(0xE1, EXIF + tiff(6)[:7])),
    "cut off in the directory": jpeg(segment(0xE1, EXIF + tiff(6)[:30])),
    "empty": jpeg(segment(0xE1, EXIF)),
    "no TIFF": jpeg(segment(0xE1, EXIF + b"XX*\0" + tiff(6)[4:])),
    "far directory": jpeg(segment(0xE1, EXIF + tiff(6, offset=2**32 - 1))),
    "far directory, other order": jpeg(segment(0xE1, EXIF + tiff(6, big=True, offset=2**31))),
    "more entries than bytes": jpeg(segment(0xE1, EXIF + tiff(9, count=65535))),
    "other tag": jpeg(segment(0xE1, EXIF + tiff(6, tag=0x0100))),
    "other type": jpeg(segment(0xE1, EXIF + tiff(6, kind=2))),
    "another APP1": jpeg(segment(0xE1, b"Exil\0\0" + tiff(6))),
    "too many segments": jpeg(*[segment(0xFE, b"")] * MAX_SEGMENTS * 2, segment(0xE1, EXIF + tiff(6))),
    "chunk of another name": png(tiff(6), name=b"eXIg"),
    "chunk without end": png(tiff(6), length=2**32 - 1),
    "webp": encode(PHOTOGRAPHS[0].resize((48, 33)), "WEBP", exif=tiff(6)).replace(b"EXIF", b"EXIT"),
}


@pytest.mark.parametrize("data", LYING.values(), ids=LYING)
def test_exif_that_lies_counts_as_upright(data):
    assert orientation(tf.constant(data)) == (6 if data is LYING["chunk without end"] else 1)
    if data[:4] != b"\x89PNG":  # whose checksums are wrong here
        assert decode_pixels(data).shape == (33, 48, 3)


def test_random_exif_gives_an_orientation():
    random = np.random.default_rng(0)
    read = tf.function(orientation, input_signature=[tf.TensorSpec((), tf.string)])
    webp = encode(PHOTOGRAPHS[0].resize((48, 33)), "WEBP", exif=tiff(6))
    files = [jpeg(JFIF, segment(0xE1, EXIF + tiff(6))), png(tiff(6, big=True)), webp]
    seen = set()
    for data in files * 100:
        changed = bytearray(data)
        end = webp.index(b"EXIF") if data is webp else 20
        for place in random.integers(end, end + 60, random.integers(1, 4)):
            changed[place % len(changed)] = random.choice([0, 1, 6, 255, random.integers(256)])
        seen.add(int(read(bytes(changed[: random.integers(1, len(changed))] if random.random() < 0.3 else changed))))
    assert {1, 6} <= seen <= set(range(1, 9))

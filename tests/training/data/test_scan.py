import io

import numpy as np
from PIL import Image, PngImagePlugin

from tests.helpers.images import encode
from training.data.image_folder import ImageFolder
from training.data.scan import Scan, describe_duplicates, describe_rare_classes, find_duplicates, scan
from training.data.split import Split


def photograph(seed, size=(300, 280)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8")).resize(size, Image.Resampling.BICUBIC)


def test_copies_in_other_splits_are_found_by_their_pixels(tmp_path):
    """Under another name, in another class, with other metadata and another compression; also beyond 256x256 pixels."""
    note = PngImagePlugin.PngInfo()
    note.add_text("comment", "other bytes")
    large = encode(photograph(1), "JPEG")
    commented = large[:2] + b"\xff\xfe\x00\x06note" + large[2:]  # with a comment segment
    small = encode(photograph(3, (9, 7)), "JPEG")
    files = {
        "train/cat/a.png": encode(photograph(0), "PNG"),
        "train/dog/b.jpg": large,
        "train/dog/b2.jpg": large,
        "train/cat/c.jpg": small,
        "train/cat/d.png": encode(photograph(4), "PNG"),
        "val/dog/e.png": encode(photograph(0), "PNG", pnginfo=note, compress_level=1),
        "val/dog/f.jpg": commented,
        "val/cat/g.jpg": encode(photograph(5), "JPEG"),
        "test/cat/h.bmp": encode(photograph(0), "BMP"),
        "test/cat/i.jpg": encode(photograph(6, (9, 7)), "JPEG"),
        "test/dog/j.jpg": encode(photograph(1), "JPEG", quality=50),  # other pixels
        "test/dog/text.jpg": b"no image",
    }
    assert Image.open(io.BytesIO(commented)).tobytes() == Image.open(io.BytesIO(large)).tobytes()
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    folder = ImageFolder(tmp_path)
    fields = ("train", "val", "test")
    scans = dict(zip(fields, scan([Split(folder, field) for field in fields]), strict=True))
    assert [len(found.names) for found in scans.values()] == [5, 3, 3]
    assert scans["test"].unreadable == [str(tmp_path / "test/dog/text.jpg")]
    labels = dict(zip(scans["val"].names, scans["val"].labels.tolist(), strict=True))
    assert labels == dict(folder.files("val"))
    duplicates = find_duplicates(scans)
    named = [{field: [folder.relative(name) for name in names] for field, names in one.items()} for one in duplicates]
    assert named == [
        {"train": ["train/cat/a.png"], "val": ["val/dog/e.png"], "test": ["test/cat/h.bmp"]},
        {"train": ["train/dog/b.jpg", "train/dog/b2.jpg"], "val": ["val/dog/f.jpg"]},
    ]
    sentences = describe_duplicates(duplicates)
    assert [text.split(", so that")[0] for text in sentences] == [
        "2 images of val are in train too",
        "1 image of test is in train too",
        "1 image of test is in val too",
    ]


def found(labels):
    nothing = np.zeros(len(labels), "int64")
    return Scan([str(i) for i in range(len(labels))], np.array(labels, "int64"), nothing, nothing, [])


def test_rare_classes_are_named():
    names = ["ant", "bee", "cow", "dog"]
    assert describe_rare_classes(found([0, 0, 1, 1, 2, 2, 3, 3]), names) == []
    assert describe_rare_classes(found([0]), names) == [
        "train has no image of 3 of 4 classes: bee, cow, dog",
        "train has a single image of 1 of 4 classes: ant",
    ]


def test_the_digest_of_a_split_knows_images_and_labels_and_no_order():
    def digest(*images):
        contents, labels = (np.array(column, "int64") for column in zip(*images))
        return Scan(["x"] * len(images), labels, contents, contents, []).digest

    assert digest((10, 0), (2**62, 1)) == digest((2**62, 1), (10, 0))
    assert (
        len({digest((10, 0), (2**62, 1)), digest((10, 1), (2**62, 1)), digest((10, 0), (10, 0)), digest((10, 0))}) == 4
    )

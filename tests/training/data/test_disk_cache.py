"""What reading all images has found is kept until a file changes."""

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from tests.helpers.images import encode, make_folder
from training.data import disk_cache, image_folder, scan, sources, split
from training.data.image_folder import ImageFolder
from training.data.split import Split
from training.recipe import Recipe


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of a cache that keeps the results of small sources too."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(disk_cache, "FEWEST", 1)
    return tmp_path / "keras" / "googlenet" / "images"


@pytest.fixture
def images(tmp_path):
    make_folder(tmp_path / "images", ("train", "val"))
    return tmp_path / "images"


@pytest.fixture
def readings(monkeypatch):
    """A list that grows with every reading of all images."""
    calls = []
    for module, name in ((scan, "_examine"), (image_folder, "_read_digests")):
        read = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, name=name, read=read: (calls.append(name), read(*a))[1])
    return calls


def scanned(images):
    """What a new process finds, as comparable values."""
    folder = ImageFolder(images)
    found = scan.scan([Split(folder, name) for name in ("train", "val")])
    return [{key: np.asarray(value).tolist() for key, value in each._asdict().items()} for each in found]


def test_images_are_scanned_again_where_a_file_has_changed(images, readings, cache):
    first = scanned(images)
    assert scanned(images) == first
    assert len(readings) == 1
    (images / "train" / "cat" / "new.png").write_bytes(encode(Image.new("RGB", (9, 9)), "PNG"))
    assert [len(each["names"]) for each in scanned(images)] == [9, 8]
    (images / "train" / "cat" / "new.png").write_bytes(encode(Image.new("RGB", (9, 9), "red"), "PNG"))
    second = scanned(images)
    assert sum(each["contents"] != before["contents"] for each, before in zip(second, first, strict=True)) == 1
    (images / "val" / "dog" / "0.png").unlink()
    assert [len(each["names"]) for each in scanned(images)] == [9, 7]
    assert len(readings) == 4
    assert len(list(cache.iterdir())) == 1


def test_labels_follow_the_class_folders_of_today(images, readings):
    """An empty folder is a class, and has no file that could change."""
    scanned(images)
    (images / "train" / "ape").mkdir()
    assert [set(each["labels"]) for each in scanned(images)] == [{1, 2}, {1, 2}]
    assert len(readings) == 2


def test_nothing_is_kept_where_an_image_could_not_be_read(images, readings):
    """The disk may have failed for a moment."""
    bad = images / "train" / "cat" / "bad.png"
    bad.write_bytes(b"no image")
    assert scanned(images) == scanned(images)
    assert scanned(images)[0]["unreadable"] == [str(bad)]
    assert len(readings) == 3


def test_slices_of_a_folder_are_read_once(images, readings):
    first = ImageFolder(images).files("train[:50%]")
    assert ImageFolder(images).files("train[:50%]") == first
    assert len(ImageFolder(images).files("train[50%:]")) == 8 - len(first)
    assert readings == ["_read_digests"]


def test_a_dataset_of_tfds_is_scanned_once(data_dir, readings):
    recipe = Recipe(source="digits", data_dir=data_dir)
    first, second = (scan.scan(sources.load(recipe)) for _ in range(2))
    assert [each.digest for each in first] == [each.digest for each in second]
    train, *rest = sources.load(recipe)
    assert len(scan.scan([dataclasses.replace(train, name="train[:20]"), *rest])[0].names) == 20
    assert readings == ["_examine"] * 2
    (file, *_) = train.builder.data_path.glob("*train.tfrecord*")
    changed = file.stat().mtime + 9
    os.utime(file, (changed, changed))
    scan.scan(sources.load(recipe))
    assert readings == ["_examine"] * 3


def test_files_that_cannot_be_examined_are_no_error(images, readings, cache, monkeypatch):
    def refuse(path):
        raise OSError("gone")

    monkeypatch.setattr(split, "stamp", refuse)
    assert scanned(images) == scanned(images)
    assert (len(readings), cache.exists()) == (2, False)


def test_small_sources_leave_no_files(images, readings, cache, monkeypatch):
    monkeypatch.setattr(disk_cache, "FEWEST", 100)
    assert scanned(images) == scanned(images)
    assert (readings, cache.exists()) == (["_examine"] * 2, False)


def test_a_damaged_file_is_replaced(images, readings, cache):
    first = scanned(images)
    (file,) = cache.glob("*.npz")
    for damage in (b"", b"PK\3\4 no archive", file.read_bytes()[:-300]):
        file.write_bytes(damage)
        assert scanned(images) == first
    assert scanned(images) == first
    assert len(readings) == 4


def test_without_a_place_to_write_images_are_scanned_all_the_same(images, readings, tmp_path):
    (tmp_path / "keras").write_text("a file where a folder should be")
    assert scanned(images) == scanned(images)
    assert len(readings) == 2

import dataclasses
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.helpers.images import encode, make_folder
from training.data import sources
from training.data.pipeline import Batches
from training.data.scan import scan, without_unreadable
from training.data.split import Split
from training.recipe import Recipe


def count_images(ds):
    return sum(len(labels) for _, labels in ds.as_numpy_iterator())


def test_unreadable_images_are_named_and_left_out(tmp_path):
    source = make_folder(tmp_path, count=20, suffixes=(".jpg", ".png"))
    bad = {}
    for name, data in {
        "empty.jpg": b"",
        "text.png": b"hello",
        "huge.png": encode(Image.new("1", (20_000, 20_000)), "PNG"),
        "cut.jpg": (tmp_path / "cat" / "0.jpg").read_bytes()[:-600],
    }.items():
        bad[name] = tmp_path / "cat" / name
        bad[name].write_bytes(data)
    good = {
        "thin.png": encode(Image.new("RGB", (1000, 1)), "PNG"),
        "png.jpg": encode(Image.new("RGB", (50, 50)), "PNG"),
        "moving.gif": encode(
            Image.new("RGB", (9, 9)), "GIF", save_all=True, append_images=[Image.new("1", (9, 9))] * 2
        ),
    }
    for name, data in good.items():
        (tmp_path / "dog" / name).write_bytes(data)
    recipe = Recipe(source=source, image_size=32, batch_size=8, epochs=1)
    whole = Split(sources.load(recipe).train.builder, "train")
    (found,) = scan([whole])
    readable = without_unreadable(whole, found)
    assert sorted(readable.skip) == sorted(map(str, bad.values()))
    assert (whole.size, readable.total, readable.size) == (47, 47, 43)
    with pytest.raises(ValueError, match=r"at most 1.0% unreadable images .*; Received: 4 of 47 in train: "):
        without_unreadable(whole, found, 0.01)
    assert count_images(Batches(readable, recipe).evaluation()) == 43
    for paper in (False, True):
        changed = dataclasses.replace(recipe, paper_augment=paper)
        assert count_images(Batches(readable, changed).training()) == 43 // 8 * 8


def test_skipped_images_keep_the_order_of_the_others(tmp_path):
    split = Split(sources.load(Recipe(source=make_folder(tmp_path, count=20))).train.builder, "train[:17]")
    names = split.names()
    assert (len(names), split.size) == (17, 17)
    without = split.without(names[::4])
    assert (without.total, without.size, without.names()) == (17, 12, names)
    kept = [name for number, name in enumerate(names) if number % 4]
    assert [path for path, _ in without.files()] == kept
    examples = list(without.examples().as_numpy_iterator())
    assert [name.decode() for name, _, _ in examples] == kept
    labels = dict(split.files())
    np.testing.assert_array_equal([label for _, _, label in examples], [labels[name] for name in kept])


def test_the_shape_of_images_that_were_arrays_is_known(data_dir, tmp_path):
    assert sources.load(Recipe(source="digits", data_dir=data_dir)).train.stored_shape == (8, 8, 1)
    assert sources.load(Recipe(source=make_folder(tmp_path))).train.stored_shape is None


@pytest.mark.parametrize("name", ["beans", "eurosat"])
def test_the_shape_of_datasets_that_may_hold_files_is_not_relied_on(name):
    features = {"image": tfds.features.Image(shape=(64, 64, 3))}
    builder = types.SimpleNamespace(name=name, info=types.SimpleNamespace(features=features))
    assert Split(builder, "train").stored_shape is None


def test_images_are_the_same_with_and_without_their_names(data_dir):
    split = sources.load(Recipe(source="digits", data_dir=data_dir)).test
    images = list(split.encoded_images().as_numpy_iterator())
    assert images == [example[1:] for example in split.examples().as_numpy_iterator()]
    assert len(images) == split.size

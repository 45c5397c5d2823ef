import shutil
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.helpers.images import make_folder
from training.data import sources
from training.data.scan import scan
from training.data.split import Split
from training.recipe import Recipe


def test_folder_labels_follow_the_class_folders(tmp_path):
    source = make_folder(tmp_path, ("train", "val"), ("zebra", "ant", "cow"), count=5)
    split = Split(sources.load(Recipe(source=source)).train.builder, "train")
    assert split.classes == ["ant", "cow", "zebra"]
    class_of = {path.read_bytes(): path.parent.name for path in (tmp_path / "train").rglob("*.png")}
    examples = list(split.encoded_images().as_numpy_iterator())
    assert len(examples) == 15
    assert all(class_of[encoded] == split.classes[label] for encoded, label in examples)
    labels = [label for _, label in examples]
    assert labels != sorted(labels)  # a slice is a sample


def test_folders_decode_like_any_dataset(tmp_path):
    builder = sources.load(Recipe(source=make_folder(tmp_path))).train.builder
    examples = tfds.as_numpy(builder.as_dataset("train[:3]", as_supervised=True))
    assert {image.shape for image, _ in examples} == {(40, 50, 3)}


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"at least two class folders.*none"):
        sources.load(Recipe(source=f"folder:{tmp_path}"))
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"at least two class folders.*\['cat'\]"):
        sources.load(Recipe(source=f"folder:{tmp_path}"))
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"images \(\.jpg"):
        sources.load(Recipe(source=f"folder:{tmp_path}"))


def test_hidden_files_and_what_macos_leaves_are_no_images(tmp_path):
    source = make_folder(tmp_path, ("train", "val"), ("ant", "cow"), count=5)
    for place in ("train/ant/._0.png", "train/cow/.DS_Store", "train/cow/Thumbs.db", "train/.cache/0.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"no image")
    for place in ("__MACOSX/train/ant", "train/__MACOSX/ant"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "0.png").write_bytes(b"no image")
    train = Split(sources.load(Recipe(source=source)).train.builder, "train")
    assert (train.classes, train.total, scan([train])[0].unreadable) == (["ant", "cow"], 10, [])


def test_images_stay_in_their_slices_whatever_comes_goes_or_is_renamed(tmp_path):
    """Also where a copy comes, which is where its original is."""
    source = make_folder(tmp_path, count=40)
    slices = ("train[:80%]", "train[80%:90%]", "train[90%:]")

    def contents():
        builder = sources.load(Recipe(source=source)).train.builder
        return [{Path(path).read_bytes() for path, _ in builder.files(name)} for name in slices]

    before = contents()
    assert [len(part) > 0 for part in before] == [True] * 3
    assert sum(map(len, before)) == 80
    removed = {(tmp_path / "cat" / f"{i}.png").read_bytes() for i in range(5)}
    for i in range(5):
        (tmp_path / "cat" / f"{i}.png").unlink()
    for i in range(20):
        Image.new("L", (5, 5), i).save(tmp_path / "dog" / f"new{i}.png")
    for i in range(10, 20):
        (tmp_path / "dog" / f"{i}.png").rename(tmp_path / "cat" / f"a{i}.png")
        shutil.copy(tmp_path / "dog" / f"{i + 10}.png", tmp_path / "cat" / f"copy{i}.png")
    after = contents()
    for old, new in zip(before, after, strict=True):
        assert old - removed <= new
    assert sum(map(len, after)) == 80 - 5 + 20


def test_slices_of_a_folder_mean_what_they_mean_elsewhere(tmp_path):
    builder = sources.load(Recipe(source=make_folder(tmp_path, ("train", "val"), count=20))).train.builder
    whole = builder.files("train")
    assert sorted(builder.files("train[:30%]") + builder.files("train[30%:]")) == sorted(whole)
    assert builder.files("train[:7]+train[7:]") == builder.files("train[:39]+train[39:]")
    assert [len(builder.files(name)) for name in ("train[:7]", "train[-5:]", "train[5:9]+val[:2]")] == [7, 5, 6]
    assert len(builder.files("all")) == 80
    with pytest.raises(ValueError, match="tset"):
        builder.files("tset")

import pytest
import tensorflow_datasets as tfds

from tests.helpers.images import make_folder
from training.data import sources
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
    assert (train.classes, train.total, train.readable(0.0).size) == (["ant", "cow"], 10, 10)

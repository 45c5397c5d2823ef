import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from training.data import sources
from training.recipe import PRESETS, Recipe


def make_folder(root, splits=("",), classes=("cat", "dog"), count=4, suffixes=(".png",)):
    rng = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (40, 50, 3), "uint8"))
                picture.save(folder / f"{i}{suffixes[i % len(suffixes)]}")
    return f"folder:{root}"


def read(builder, split):
    """Examples with their pictures encoded."""
    return list(tfds.as_numpy(builder.as_dataset(split, decoders={"image": tfds.decode.SkipDecoding()})))


def test_digits_are_all_of_scikit_learns_split_within_each_class(data_dir):
    builder, splits = sources.load(dataclasses.replace(PRESETS["digits"], data_dir=data_dir))
    assert sources.class_names(builder) == [str(d) for d in range(10)]
    train, test = (list(tfds.as_numpy(builder.as_dataset(split))) for split in ("train", "test"))
    assert (len(train), len(test)) == (1437, 360)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    found = sorted((e["label"], e["image"].astype(int).tobytes()) for e in train + test)
    expected = np.round(pixels * 255 / 16).astype(int)
    assert found == sorted((label, image.tobytes()) for label, image in zip(labels, expected))
    share = np.bincount([e["label"] for e in test]) / np.bincount(labels)
    assert np.abs(share - 0.2).max() < 0.01
    assert splits == sources.Splits("train[:90%]", "train[90%:]", "test")
    assert [sources.size(builder, s) for s in ("train[:90%]", "train[90%:]", "test")] == [1293, 144, 360]


@pytest.mark.skipif(not sources.FASHION_MNIST_FILES.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_comes_from_its_files(data_dir, monkeypatch):
    whole = sources._idx_bytes
    few = {"images": 784 * 50, "labels": 50}  # enough to read the format without writing 70,000 records
    monkeypatch.setattr(sources, "_idx_bytes", lambda path, header: whole(path, header)[: few[path.name.split("-")[1]]])
    builder, splits = sources.load(Recipe(source="fashion_mnist", data_dir=data_dir))
    examples = list(tfds.as_numpy(builder.as_dataset("train")))
    assert (len(examples), splits.test) == (50, "test")
    assert {e["image"].shape for e in examples} == {(28, 28, 1)}
    labels = whole(sources.FASHION_MNIST_FILES / "train-labels-idx1-ubyte.gz", 8)
    assert len(labels) == 60_000
    assert sorted(e["label"] for e in examples) == sorted(labels[:50])
    assert sources.class_names(builder)[9] == "Ankle boot"


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("",), ("train[:80%]", "train[80%:90%]", "train[90%:]")),
        (("train", "val"), ("train[:90%]", "train[90%:]", "val")),
        (("train", "test"), ("train[:90%]", "train[90%:]", "test")),
        (("train", "validation", "test"), ("train", "validation", "test")),
    ],
)
def test_folders_are_split_without_overlap(tmp_path, folders, expected):
    source = make_folder(tmp_path, folders, count=10)
    builder, splits = sources.load(Recipe(source=source))
    assert dataclasses.astuple(splits) == expected
    parts = [{e["image"] for e in read(builder, s)} for s in expected]
    assert sum(map(len, parts)) == 20 * len(folders)
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]


def test_folder_labels_follow_the_class_folders(tmp_path):
    source = make_folder(tmp_path, ("train", "val"), ("zebra", "ant", "cow"), count=5)
    builder, _ = sources.load(Recipe(source=source))
    assert sources.class_names(builder) == ["ant", "cow", "zebra"]
    pictures = {path.read_bytes(): path.parent.name for path in (tmp_path / "train").rglob("*.png")}
    examples = read(builder, "train")
    assert len(examples) == 15
    assert all(pictures[e["image"]] == sources.class_names(builder)[e["label"]] for e in examples)
    labels = [e["label"] for e in examples]
    assert labels != sorted(labels)  # a slice is a sample


def test_own_splits_are_taken(tmp_path):
    source = make_folder(tmp_path, count=10)
    recipe = Recipe(source=source, train_split="train[:5]", validation_split="train[5:8]", test_split="train[-2:]")
    builder, splits = sources.load(recipe)
    assert [sources.size(builder, s) for s in dataclasses.astuple(splits)] == [5, 3, 2]


class ToyPictures(tfds.core.GeneratorBasedBuilder):
    """Known to TFDS by its name, as any dataset is once its module is imported."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["a", "b"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "validation")}

    def _generate_examples(self, split):
        for i in range(20):
            yield i, {"image": np.full((9 + i, 12, 3), i, "uint8"), "label": i % 2}


def test_any_name_of_tfds_works(data_dir):
    builder, splits = sources.load(Recipe(source="toy_pictures", data_dir=data_dir))
    assert splits == sources.Splits("train[:90%]", "train[90%:]", "validation")
    assert [sources.size(builder, split) for split in dataclasses.astuple(splits)] == [18, 2, 20]
    assert sources.class_names(builder) == ["a", "b"]


def test_folders_decode_like_any_dataset(tmp_path):
    builder, _ = sources.load(Recipe(source=make_folder(tmp_path)))
    assert {image.shape for image, _ in tfds.as_numpy(builder.as_dataset("train[:3]", as_supervised=True))} == {
        (40, 50, 3)
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", r"source to be 'digits'.*'digit'.*Nearest: digits"),
        ("cifar11", r"Nearest: .*cifar10"),
        ("folder:/nonexistent", "not a folder"),
    ],
)
def test_unknown_sources_are_refused(source, message):
    with pytest.raises(ValueError, match=message):
        sources.load(Recipe(source=source))


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"at least two class folders.*none"):
        sources.load(Recipe(source=f"folder:{tmp_path}"))
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"at least two class folders.*\['cat'\]"):
        sources.load(Recipe(source=f"folder:{tmp_path}"))
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"pictures \(\.jpg"):
        sources.load(Recipe(source=f"folder:{tmp_path}"))


def test_bad_splits_are_refused(data_dir):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir)
    with pytest.raises(ValueError, match=r"test_split.*'digits'"):
        sources.load(dataclasses.replace(recipe, test_split="tset"))
    with pytest.raises(ValueError, match=r"train_split.*empty"):
        sources.load(dataclasses.replace(recipe, train_split="train[:0]"))

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.helpers.images import make_folder
from training.data import sources
from training.presets import PRESETS
from training.recipe import Recipe


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
    splits = sources.load(Recipe(source=make_folder(tmp_path, folders, count=30)))
    assert tuple(splits.names().values()) == expected
    parts = [{encoded for encoded, _ in split.encoded_images().as_numpy_iterator()} for split in splits]
    assert sum(map(len, parts)) == 60 * len(folders)
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]


def test_few_images_are_split_by_number(tmp_path):
    """Of 8 images, a slice of 10 % of the digests is often empty."""
    splits = sources.load(Recipe(source=make_folder(tmp_path)))
    assert tuple(splits.names().values()) == ("train[:6]", "train[6:7]", "train[7:]")
    assert len({name for split in splits for name in split.names()}) == 8


def test_splits_of_the_recipe_are_taken(tmp_path):
    source = make_folder(tmp_path, count=10)
    recipe = Recipe(source=source, train_split="train[:5]", validation_split="train[5:8]", test_split="train[-2:]")
    assert [split.size for split in sources.load(recipe)] == [5, 3, 2]


class ToyImages(tfds.core.GeneratorBasedBuilder):
    """TFDS knows it by its name, as any dataset once its module is imported."""

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
    splits = sources.load(Recipe(source="toy_images", data_dir=data_dir))
    assert tuple(splits.names().values()) == ("train[:90%]", "train[90%:]", "validation")
    assert [split.size for split in splits] == [18, 2, 20]
    assert splits.train.classes == ["a", "b"]


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


def test_bad_splits_are_refused(data_dir):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir)
    with pytest.raises(ValueError, match=r"test_split.*'digits'"):
        sources.load(dataclasses.replace(recipe, test_split="tset"))
    with pytest.raises(ValueError, match=r"train_split.*empty"):
        sources.load(dataclasses.replace(recipe, train_split="train[:0]"))

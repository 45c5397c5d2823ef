import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds

from training.data import builders, sources
from training.presets import PRESETS
from training.recipe import Recipe


def test_digits_are_all_of_scikit_learns_split_within_each_class(data_dir):
    splits = sources.load(dataclasses.replace(PRESETS["digits"], data_dir=data_dir))
    assert splits.train.classes == [str(d) for d in range(10)]
    builder = splits.train.builder
    train, test = (list(tfds.as_numpy(builder.as_dataset(split))) for split in ("train", "test"))
    assert (len(train), len(test)) == (1437, 360)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    found = sorted((e["label"], e["image"].astype(int).tobytes()) for e in train + test)
    expected = np.round(pixels * 255 / 16).astype(int)
    assert found == sorted((label, image.tobytes()) for label, image in zip(labels, expected))
    fraction = np.bincount([e["label"] for e in test]) / np.bincount(labels)
    assert np.abs(fraction - 0.2).max() < 0.01
    assert splits.names() == {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
    assert [split.size for split in splits] == [1293, 144, 360]


@pytest.mark.skipif(not builders.FASHION_MNIST_FILES.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_comes_from_its_files(data_dir, monkeypatch):
    whole = builders._idx_bytes
    few = {"images": 784 * 50, "labels": 50}  # enough to read the format without writing 70,000 records
    monkeypatch.setattr(
        builders, "_idx_bytes", lambda path, header: whole(path, header)[: few[path.name.split("-")[1]]]
    )
    splits = sources.load(Recipe(source="fashion_mnist", data_dir=data_dir))
    examples = list(tfds.as_numpy(splits.train.builder.as_dataset("train")))
    assert (len(examples), splits.test.name) == (50, "test")
    assert {e["image"].shape for e in examples} == {(28, 28, 1)}
    labels = whole(builders.FASHION_MNIST_FILES / "train-labels-idx1-ubyte.gz", 8)
    assert len(labels) == 60_000
    assert sorted(e["label"] for e in examples) == sorted(labels[:50])
    assert splits.train.classes[9] == "Ankle boot"

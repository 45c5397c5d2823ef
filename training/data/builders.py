"""Datasets that need no download: scikit-learn's digits and the files of Fashion-MNIST."""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

FASHION_MNIST_FILES = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

Examples = Iterator[tuple[int, dict[str, Any]]]  # key and features, as TFDS takes them


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn embeds, split 80/20 within each class."""

    VERSION = tfds.core.Version("1.0.0")
    SPLIT_SEED = 0  # which images are test images; part of the dataset's definition

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=image_and_label((8, 8, 1), [str(digit) for digit in range(10)]),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, labels = load_digits(return_X_y=True)
        images = np.round(pixels * (255 / 16)).astype("uint8").reshape(-1, 8, 8, 1)  # 0..16 -> 0..255
        parts = train_test_split(images, labels, test_size=0.2, random_state=self.SPLIT_SEED, stratify=labels)
        return {
            "train": self._generate_examples(parts[0], parts[2]),
            "test": self._generate_examples(parts[1], parts[3]),
        }

    def _generate_examples(self, images: Iterable[np.ndarray], labels: Iterable[int]) -> Examples:
        yield from _numbered(images, labels)


class FashionMnistFiles(tfds.core.GeneratorBasedBuilder):
    """Fashion-MNIST from its four IDX files: 60,000 training and 10,000 test images of 28x28 pixels."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=image_and_label((28, 28, 1), FASHION_CLASSES),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        return {"train": self._generate_examples("train"), "test": self._generate_examples("t10k")}

    def _generate_examples(self, prefix: str) -> Examples:
        images = _idx_bytes(FASHION_MNIST_FILES / f"{prefix}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28, 1)
        labels = _idx_bytes(FASHION_MNIST_FILES / f"{prefix}-labels-idx1-ubyte.gz", header=8)
        yield from _numbered(images, labels)


def image_and_label(shape: tuple[int | None, int | None, int], names: Sequence[str]) -> tfds.features.FeaturesDict:
    """Features of a dataset of images with one class label."""
    return tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=names)}
    )


def _numbered(images: Iterable[np.ndarray], labels: Iterable[int]) -> Examples:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield number, {"image": image, "label": int(label)}


def _idx_bytes(path: Path, header: int) -> np.ndarray:
    """The bytes of an IDX file after its header."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), "uint8", offset=header)

"""Where images come from: every source is a `tfds.core.DatasetBuilder`, with class names, splits and slices."""

import dataclasses
import difflib
import gzip
import os
import random
from pathlib import Path

import filelock
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from training.recipe import Recipe

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
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
VALIDATION_NAMES = ("validation", "val", "valid")


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn embeds, split 80/20 within each class."""

    VERSION = tfds.core.Version("1.0.0")
    SPLIT_SEED = 0  # which images are test images; part of the dataset's definition

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=_image_and_label((8, 8, 1), [str(digit) for digit in range(10)]),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, labels = load_digits(return_X_y=True)
        images = np.round(pixels * (255 / 16)).astype("uint8").reshape(-1, 8, 8, 1)  # 0..16 -> 0..255
        parts = train_test_split(images, labels, test_size=0.2, random_state=self.SPLIT_SEED, stratify=labels)
        return {
            "train": self._generate_examples(parts[0], parts[2]),
            "test": self._generate_examples(parts[1], parts[3]),
        }

    def _generate_examples(self, images, labels):
        yield from _numbered(images, labels)


class FashionMnistFiles(tfds.core.GeneratorBasedBuilder):
    """Fashion-MNIST from its four IDX files: 60,000 training and 10,000 test images of 28x28 pixels."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=_image_and_label((28, 28, 1), FASHION_CLASSES),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("train"), "test": self._generate_examples("t10k")}

    def _generate_examples(self, prefix):
        images = _idx_bytes(FASHION_MNIST_FILES / f"{prefix}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28, 1)
        labels = _idx_bytes(FASHION_MNIST_FILES / f"{prefix}-labels-idx1-ubyte.gz", header=8)
        yield from _numbered(images, labels)


class PictureFolder(tfds.core.DatasetBuilder):
    """Pictures in class sub-folders: `PATH/train/CLASS/*` and `PATH/val/CLASS/*`, or `PATH/CLASS/*` alone.

    Reads JPEG, PNG, GIF (first frame), BMP and WebP in place. Unlike `tfds.ImageFolder` it slices its splits
    ("train[:90%]"). The order within a split is shuffled once, the same on every machine, so that a slice is a sample.

    Args:
        root: the folder.

    Raises:
        ValueError: no such folder, fewer than two classes, or a split lacking pictures.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, root: str | os.PathLike):
        root = Path(root).expanduser()
        if not root.is_dir():
            raise ValueError(f"Expected a folder of pictures; Received: {str(root)!r}, which is not a folder.")
        self._pictures, self._classes = _find_pictures(root)
        super().__init__(data_dir=str(root))
        self._data_dir = str(root)  # nothing is prepared: the folder is the dataset
        splits = [
            tfds.core.SplitInfo(name=name, shard_lengths=[len(pictures)], num_bytes=0)
            for name, pictures in self._pictures.items()
        ]
        self.info.set_splits(tfds.core.SplitDict(splits))

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=_image_and_label((None, None, 3), self._classes),
            supervised_keys=("image", "label"),
        )

    def download_and_prepare(self, **kwargs):
        """Nothing to do."""

    def _download_and_prepare(self, dl_manager, download_config):
        raise AssertionError("download_and_prepare never comes here")

    def pictures(self, split: str) -> list[tuple[str, int]]:
        """(path, label) of every picture of a split, in order."""
        return [
            picture
            for part in tfds.core.ReadInstruction.from_spec(str(split)).to_absolute(self.info.splits)
            for picture in self._pictures[part.splitname][part.from_ : part.to]
        ]

    def _as_dataset(self, split, decoders=None, read_config=None, shuffle_files=False) -> tf.data.Dataset:
        paths, labels = zip(*self.pictures(split), strict=True)
        ds = tf.data.Dataset.from_tensor_slices((list(paths), np.array(labels, "int64")))
        if shuffle_files:
            ds = ds.shuffle(len(paths), seed=read_config.shuffle_seed if read_config else None)

        def read(path, label):
            example = {"image": tf.io.read_file(path), "label": label}
            example = self.info.features.decode_example(example, decoders=decoders)
            return {**example, "tfds_id": path} if read_config and read_config.add_tfds_id else example

        return ds.map(read, tf.data.AUTOTUNE)


@dataclasses.dataclass(frozen=True)
class Splits:
    """TFDS split specifications of one run. They are disjoint unless the dataset itself has fewer splits."""

    train: str
    validation: str
    test: str


def load(recipe: Recipe) -> tuple[tfds.core.DatasetBuilder, Splits]:
    """Finds and prepares the source that a recipe names, and decides its splits.

    Args:
        recipe: its `source` is "digits", "fashion_mnist", "folder:PATH" or any name that `tfds.builder` takes; its
            `*_split` fields, where given, are TFDS split specifications.

    Returns:
        The prepared builder and the splits.

    Raises:
        ValueError: an unknown source (the nearest names are listed), a folder that cannot be used, a dataset that
            does not classify images, or an unknown split.
    """
    builder = _builder(recipe.source, recipe.data_dir)
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not isinstance(features["label"], tfds.features.ClassLabel):
        raise ValueError(
            f"Expected a dataset of images with one class label; Received: {recipe.source!r} with {features}."
        )
    builder = _prepared(builder, recipe)
    splits = _choose_splits(builder, recipe)
    for field in dataclasses.fields(splits):
        split = getattr(splits, field.name)
        try:
            count = size(builder, split)
        except ValueError as error:
            raise ValueError(f"Expected {field.name}_split to be a split of {recipe.source!r}: {error}") from error
        if not count:
            raise ValueError(f"Expected images in {field.name}_split; Received: {split!r}, which is empty.")
    return builder, splits


def size(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """Number of images in a split or a slice of one."""
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits)
    return sum(len(range(builder.info.splits[part.splitname].num_examples)[part.from_ : part.to]) for part in parts)


def encoded_pictures(builder: tfds.core.DatasetBuilder, split: str, order=None) -> tf.data.Dataset:
    """(name, encoded picture, label) of a split, in the source's order or with its files in an order of their own.

    Args:
        builder: a prepared source.
        split: TFDS split specification.
        order: a number that decides the order of the files, or None.

    Returns:
        Dataset of strings and int64. A name is the picture's path, or TFDS' id (file and number).
    """
    ds = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        shuffle_files=order is not None,
        read_config=tfds.ReadConfig(shuffle_seed=order, try_autocache=False, add_tfds_id=True),
    )
    return untuned(ds.map(lambda example: (example["tfds_id"], example["image"], example["label"])))


def untuned(ds: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset without tf.data's own tuning, whose thread may sleep through the end of an iterator.

    TensorFlow 2.21 wakes it before it marks the iterator as cancelled, so that whoever drops the iterator now and then
    waits for the rest of its sleep, which grows to a minute. Parallel stages have to name their number.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return ds.with_options(options)


def names(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    """What tells the pictures of a split apart, in the source's order: names as `encoded_pictures` gives them."""
    if isinstance(builder, PictureFolder):  # without opening files, one of which may not be readable
        return tf.data.Dataset.from_tensor_slices([path for path, _ in builder.pictures(split)])
    return encoded_pictures(builder, split).map(lambda name, encoded, label: name)


def encoded_bytes(builder: tfds.core.DatasetBuilder, split: str) -> float:
    """About how large the pictures of a split are before they are decoded; of a slice its share."""
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits)
    whole = [builder.info.splits[part.splitname] for part in parts]
    return size(builder, split) * max(part.num_bytes / max(1, part.num_examples) for part in whole)


def class_names(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Names of the classes in label order."""
    return list(builder.info.features["label"].names)


def _builder(source: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    if source.startswith("folder:"):
        return PictureFolder(source.removeprefix("folder:"))
    if source == "digits":
        return Digits(data_dir=data_dir)
    if source == "fashion_mnist" and FASHION_MNIST_FILES.is_dir():
        return FashionMnistFiles(data_dir=data_dir)
    try:
        return tfds.builder(source, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(source, known, n=3)
        hint = f" Nearest: {', '.join(near)}." if near else ""
        raise ValueError(
            "Expected source to be 'digits', 'fashion_mnist', 'folder:PATH' or a name of TensorFlow Datasets; "
            f"Received: source={source!r}.{hint}"
        ) from None


def _prepared(builder: tfds.core.DatasetBuilder, recipe: Recipe) -> tfds.core.DatasetBuilder:
    """The builder once its files are there; of several processes one writes them and the others wait."""
    place = Path(builder.data_dir)
    if isinstance(builder, PictureFolder) or "://" in str(builder.data_dir) or place.exists():
        builder.download_and_prepare()
        return builder
    place.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(place.parent / f".{place.name}.lock"):
        if place.exists():  # another process has prepared it meanwhile
            builder = _builder(recipe.source, recipe.data_dir)
        builder.download_and_prepare()
    return builder


def _choose_splits(builder, recipe: Recipe) -> Splits:
    """The recipe's own, else the dataset's, else slices of "train" that do not overlap."""
    names = list(builder.info.splits)
    own_validation = next((name for name in VALIDATION_NAMES if name in names), None)
    test = recipe.test_split or ("test" if "test" in names else None)
    percent = round(100 * recipe.validation_fraction)
    train, validation = "train", own_validation
    if own_validation is None:
        train, validation = f"train[:{100 - percent}%]", f"train[{100 - percent}%:]"
    elif test is None:  # the usual folder of two: choices are made on train's tail, val is the final word
        train, validation, test = f"train[:{100 - percent}%]", f"train[{100 - percent}%:]", own_validation
    if test is None:  # one split for all
        train = f"train[:{100 - 2 * percent}%]"
        validation, test = f"train[{100 - 2 * percent}%:{100 - percent}%]", f"train[{100 - percent}%:]"
    return Splits(recipe.train_split or train, recipe.validation_split or validation, test)


def _image_and_label(shape, names) -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=names)}
    )


def _numbered(images, labels):
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield number, {"image": image, "label": int(label)}


def _idx_bytes(path: Path, header: int) -> np.ndarray:
    """The bytes of an IDX file after its header."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), "uint8", offset=header)


def _find_pictures(root: Path) -> tuple[dict[str, list[tuple[str, int]]], list[str]]:
    """{split: [(path, label)]}, shuffled within the split, and the class names in label order."""
    folders = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    splits = [f for f in folders if f.name in ("train", "test", *VALIDATION_NAMES)]
    if not any(f.name == "train" for f in splits):
        splits = [root]
    classes = sorted({c.name for split in splits for c in split.iterdir() if c.is_dir() and not c.name.startswith(".")})
    if len(classes) < 2:
        raise ValueError(
            f"Expected at least two class folders in {str(root)!r} (or in its train/); Received: {classes or 'none'}."
        )
    found = {}
    for split in splits:
        pictures = [
            (str(path), label)
            for label, name in enumerate(classes)
            for path in sorted((split / name).glob("*"))
            if path.suffix.lower() in PICTURE_SUFFIXES
        ]
        if not pictures:
            raise ValueError(f"Expected pictures ({', '.join(PICTURE_SUFFIXES)}) in {str(split)!r}; Received: none.")
        random.Random(0).shuffle(pictures)
        found["train" if split == root else split.name] = pictures
    return found, classes

"""Images in class sub-folders as a dataset of TensorFlow Datasets."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from training.data.builders import image_and_label
from training.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
VALIDATION_NAMES = ("validation", "val", "valid")


class ImageFolder(tfds.core.DatasetBuilder):
    """Images in class sub-folders: `PATH/train/CLASS/*` and `PATH/val/CLASS/*`, or `PATH/CLASS/*` alone.

    Reads JPEG, PNG, GIF (first frame), BMP and WebP in place. Hidden files and folders and those that macOS leaves in
    archives (`._IMG.jpg`, `__MACOSX/`) do not count. Unlike `tfds.ImageFolder` it slices its splits ("train[:90%]").
    The order within a split is shuffled once, the same on every machine, so that a slice is a sample.

    Args:
        root: the folder.

    Raises:
        UserError: no such folder, fewer than two classes, or a split without images.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, root: str | os.PathLike[str]) -> None:
        root = Path(root).expanduser()
        if not root.is_dir():
            raise UserError(f"Expected a folder of images; Received: {str(root)!r}, which is not a folder.")
        self._files, self._classes = _find_images(root)
        super().__init__(data_dir=str(root))
        self._data_dir = str(root)  # nothing is prepared: the folder is the dataset
        splits = [
            tfds.core.SplitInfo(name=name, shard_lengths=[len(files)], num_bytes=0)
            for name, files in self._files.items()
        ]
        self.info.set_splits(tfds.core.SplitDict(splits))

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=image_and_label((None, None, 3), self._classes),
            supervised_keys=("image", "label"),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Does nothing: the files are read in place."""

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig
    ) -> None:
        raise AssertionError("download_and_prepare never comes here")

    def files(self, split: str) -> list[tuple[str, int]]:
        """(path, label) of every image of a split, in order."""
        return [
            file
            for part in tfds.core.ReadInstruction.from_spec(str(split)).to_absolute(self.info.splits)
            for file in self._files[part.splitname][part.from_ : part.to]
        ]

    def _as_dataset(
        self,
        split: str,
        decoders: Any = None,
        read_config: tfds.ReadConfig | None = None,
        shuffle_files: bool = False,
    ) -> tf.data.Dataset:
        paths, labels = zip(*self.files(split), strict=True)
        ds = tf.data.Dataset.from_tensor_slices((list(paths), np.array(labels, "int64")))
        if shuffle_files:
            ds = ds.shuffle(len(paths), seed=read_config.shuffle_seed if read_config else None)

        def read(path: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
            example = {"image": tf.io.read_file(path), "label": label}
            example = self.info.features.decode_example(example, decoders=decoders)
            return {**example, "tfds_id": path} if read_config and read_config.add_tfds_id else example

        return ds.map(read, tf.data.AUTOTUNE)


def _find_images(root: Path) -> tuple[dict[str, list[tuple[str, int]]], list[str]]:
    """{split: [(path, label)]}, shuffled within the split, and the class names in label order."""
    folders = _folders(root)
    splits = [f for f in folders if f.name in ("train", "test", *VALIDATION_NAMES)]
    if not any(f.name == "train" for f in splits):
        splits = [root]
    classes = sorted({folder.name for split in splits for folder in _folders(split)})
    if len(classes) < 2:
        raise UserError(
            f"Expected at least two class folders in {str(root)!r} (or in its train/); Received: {classes or 'none'}."
        )
    found = {}
    for split in splits:
        files = [
            (str(path), label)
            for label, name in enumerate(classes)
            for path in sorted((split / name).glob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        ]
        if not files:
            raise UserError(f"Expected images ({', '.join(IMAGE_SUFFIXES)}) in {str(split)!r}; Received: none.")
        random.Random(0).shuffle(files)
        found["train" if split == root else split.name] = files
    return found, classes


def _folders(root: Path) -> list[Path]:
    """The folders in another one, without hidden ones and those of macOS' archives."""
    folders = [path for path in root.iterdir() if path.is_dir()]
    return sorted(folder for folder in folders if not folder.name.startswith((".", "__MACOSX")))

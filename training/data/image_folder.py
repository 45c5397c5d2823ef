"""Images in class sub-folders as a dataset of TensorFlow Datasets."""

import functools
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from training.data.builders import image_and_label
from training.data.disk_cache import Reading, cached, stamp
from training.data.image_files import IMAGE_SUFFIXES, is_image_file, is_visible_folder
from training.data.threads import CORES, without_autotuning
from training.errors import UserError

VALIDATION_NAMES = ("validation", "val", "valid")
DIGESTS = 2**63 - 1  # number of digests of a file's content


class ImageFolder(tfds.core.DatasetBuilder):
    """Images in class sub-folders: `PATH/train/CLASS/*` and `PATH/val/CLASS/*`, or `PATH/CLASS/*` alone.

    Reads JPEG, PNG, GIF (first frame), BMP and WebP in place. Hidden files and folders and those that macOS leaves in
    archives (`._IMG.jpg`, `__MACOSX/`) do not count. Unlike `tfds.ImageFolder` it slices its splits ("train[:90%]").

    A slice in percent takes the images whose digest lies in that part of all digests. So an image stays in its slice
    whatever else comes to the folder or leaves it, under whatever name, and copies of a file stay together. The digest
    is that of the file's bytes and not of its name: names such as IMG_0001.jpg come again in other cameras' folders,
    and a renamed image must not become a test image. An image that was saved anew is another one. A slice of a number
    of images takes them in the order of their digests.

    Args:
        root: the folder.
        files: by split, the paths of its images in the folder, in place of those that are there.
        classes: names of the class folders in label order, with `files`.

    Raises:
        UserError: no such folder, fewer than two classes, or a split without images.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        root: str | os.PathLike[str],
        files: Mapping[str, Iterable[str]] | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise UserError(f"Expected a folder of images; Received: {str(self.root)!r}, which is not a folder.")
        if files is None:
            self._files, self._classes = _find_images(self.root)
        else:
            labels, self._classes = {name: label for label, name in enumerate(classes)}, list(classes)
            self._files = {
                split: [(str(self.root / name), labels[Path(name).parent.name]) for name in names]
                for split, names in files.items()
            }
        self._digested: dict[str, list[tuple[int, tuple[str, int]]]] = {}
        super().__init__(data_dir=str(self.root))
        self._data_dir = str(self.root)  # nothing is prepared: the folder is the dataset
        self.info.set_splits(_split_sizes({name: len(files) for name, files in self._files.items()}))

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
        """(path, label) of every image of a split, in order. Raises ValueError where there is no such split."""
        return [file for part in split.split("+") for file in self._part(part)]

    def relative(self, path: str) -> str:
        """An image's path in the folder, with slashes."""
        return Path(path).relative_to(self.root).as_posix()

    def digests(self, split: str) -> dict[str, int]:
        """Path to digest of every file of a split or slice, in order."""
        paths = [path for path, _ in self.files(split)]
        return dict(zip(paths, self._content_digests(split, paths), strict=True))

    @functools.cached_property
    def _percent(self) -> tfds.core.SplitDict:
        """Splits in which a percent is one image, to find out what a slice in percent means."""
        return _split_sizes(dict.fromkeys(self._files, 100))

    def _part(self, split: str) -> list[tuple[str, int]]:
        """The images of a split or of one slice."""
        sizes = self._percent if "%" in split else self.info.splits
        found = []
        for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(sizes):
            first, last = part.from_ or 0, sizes[part.splitname].num_examples if part.to is None else part.to
            if (first, last) == (0, sizes[part.splitname].num_examples):
                found += self._files[part.splitname]
                continue
            ordered = self._by_content(part.splitname)
            if "%" in split:
                low, high = (DIGESTS * percent // 100 for percent in (first, last))
                found += [file for digest, file in ordered if low <= digest < high]
            else:
                found += [file for _, file in ordered[first:last]]
        return found

    def _by_content(self, split: str) -> list[tuple[int, tuple[str, int]]]:
        """The files of a whole split with their digests, in the order of those."""
        if split not in self._digested:
            files = self._files[split]
            digests = self._content_digests(split, [path for path, _ in files])
            self._digested[split] = sorted(zip(digests, files, strict=True))
        return self._digested[split]

    def _content_digests(self, split: str, paths: Sequence[str]) -> list[int]:
        """Digests of the bytes of the files of a split or slice; those of many files are cached."""
        source = (str(self.root), split)
        (found,) = cached("digests", source, lambda: map(stamp, paths), len(paths), lambda: _read_digests(paths))
        return found.tolist()

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


@tf.autograph.experimental.do_not_convert
def _read_digests(paths: Sequence[str]) -> Reading:
    """Digests of the bytes of some files; of the path where a file cannot be read."""

    def read(number: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return number, tf.strings.to_hash_bucket_fast(tf.io.read_file(path), DIGESTS)

    digests = tf.strings.to_hash_bucket_fast(list(paths), DIGESTS).numpy()
    ds = tf.data.Dataset.from_tensor_slices((np.arange(len(paths)), list(paths))).map(read, CORES).ignore_errors()
    count = 0
    for numbers, found in without_autotuning(ds.batch(1024)).as_numpy_iterator():
        digests[numbers] = found
        count += len(numbers)
    return Reading([digests], complete=count == len(paths))


def _split_sizes(sizes: Mapping[str, int]) -> tfds.core.SplitDict:
    """Splits of so many images."""
    return tfds.core.SplitDict(
        [tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0) for name, size in sizes.items()]
    )


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
            if is_image_file(path)
        ]
        if not files:
            raise UserError(f"Expected images ({', '.join(IMAGE_SUFFIXES)}) in {str(split)!r}; Received: none.")
        random.Random(0).shuffle(files)
        found["train" if split == root else split.name] = files
    return found, classes


def _folders(root: Path) -> list[Path]:
    """The folders in another one, without hidden ones and those of macOS' archives."""
    folders = [path for path in root.iterdir() if path.is_dir()]
    return sorted(folder for folder in folders if is_visible_folder(folder.name))

"""What reading all images of a large source has found, kept on disk until one of its files changes."""

import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from inception_v1.atomic_files import contended_file
from inception_v1.keras_home import keras_home

FEWEST = 2**14  # images; fewer are read within seconds
VERSION = 2  # of what is stored; a change of how images are read counts up

Arrays = list[np.ndarray]
Stamp = tuple[str, int, int]  # path, bytes, and when a file was changed last, in nanoseconds

log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What reading all images has given.

    Attributes:
        arrays: to keep.
        complete: whether every image could be read. Else nothing is kept: a disk may have failed for a moment.
    """

    arrays: Arrays
    complete: bool


def cache_folder() -> Path:
    """Where results are kept; whatever is in there may be deleted at any time."""
    return keras_home() / "googlenet" / "images"


def cached(
    kind: str, source: Iterable[str], stamps: Callable[[], Iterable[Stamp]], images: int, make: Callable[[], Reading]
) -> Arrays:
    """The arrays that `make` returns, from the disk where the same files gave them before.

    Each source has one file, which a new result replaces. A source of fewer than `FEWEST` images is not worth it, and
    files that cannot be examined, a damaged file of the cache, or a folder that cannot be written are no errors: then
    `make` is called.

    Args:
        kind: of result, in letters that a file name may have.
        source: what the images are, and all that the result depends on beside their files.
        stamps: of all files; raises OSError or tf.errors.OpError where that is not possible.
        images: number of them.
        make: reads the images.
    """
    if images < FEWEST:
        return make().arrays
    path = cache_folder() / f"{kind}-{_digest(source)}.npz"
    try:
        now = _digest((VERSION, tf.__version__, *stamps()))
    except (OSError, tf.errors.OpError) as error:
        log.info("%s is not used: %s", path, error)
        return make().arrays
    if (known := _read(path, now)) is not None:
        log.info("%d images have not changed since %s was written", images, path)
        return known
    found = make()
    if found.complete:
        _write(path, now, found.arrays)
    return found.arrays


def stamp(path: str) -> Stamp:
    """Path, size and time of change of a local file. Raises OSError where there is none."""
    found = os.stat(path)
    return path, found.st_size, found.st_mtime_ns


def stamps_in(folder: str) -> Iterable[Stamp]:
    """Stamps of the files in a folder, which may be remote. Raises tf.errors.OpError where they cannot be examined."""
    for name in sorted(tf.io.gfile.listdir(folder)):
        path = os.path.join(folder, name)
        found = tf.io.gfile.stat(path)
        yield path, found.length, found.mtime_nsec


def _digest(values: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value).encode())
    return digest.hexdigest()[:32]


def _read(path: Path, stamps: str) -> Arrays | None:
    """The arrays of a file; None where there is none, a damaged one, or one of other files."""
    try:
        with np.load(path, allow_pickle=False) as file:
            before, *arrays = [file[name] for name in file.files]
            return arrays if str(before) == stamps else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _write(path: Path, stamps: str, arrays: Arrays) -> None:
    """Writes a file, whole or not at all, whatever other processes write."""
    try:
        with contended_file(path) as part:
            np.savez_compressed(part, np.array(stamps), *arrays)
    except OSError as error:
        log.info("%s is not written: %s", path, error)

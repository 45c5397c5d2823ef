"""What reading all images of a large source has found, kept on disk until one of its files changes."""

import contextlib
import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import tensorflow as tf

from inception_v1.atomic_files import atomic_file

FEWEST = 2**14  # images; fewer are read within seconds
VERSION = 1  # of what is stored; a change of how images are read counts up

Arrays = list[np.ndarray]
Stamp = tuple[str, int, int]  # path, bytes, and when a file was changed last, in nanoseconds


class Reading(NamedTuple):
    """What reading all images has given.

    Attributes:
        arrays: to keep.
        complete: whether every image could be read. Else nothing is kept: a disk may have failed for a moment.
    """

    arrays: Arrays
    complete: bool


log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where results are kept; whatever is in there may be deleted at any time."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras", "googlenet", "images")


def cached(
    kind: str, key: Iterable[str], stamps: Callable[[], Iterable[Stamp]], images: int, make: Callable[[], Reading]
) -> Arrays:
    """The arrays that `make` returns, from the disk where the same files gave them before.

    A source of fewer than `FEWEST` images is not worth it, and files that cannot be examined, a damaged file of the
    cache, or a folder that cannot be written are no errors: then `make` is called. Of several processes one reads the
    images and the others wait.

    Args:
        kind: of result, in letters that a file name may have.
        key: what else the result depends on, beside the files.
        stamps: of all files; raises OSError where that is not possible.
        images: number of them.
        make: reads the images.
    """
    if images < FEWEST:
        return make().arrays
    with contextlib.ExitStack() as stack:
        try:
            path = cache_folder() / f"{kind}-{_digest(key, stamps())}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(path.with_suffix(".lock")))
        except OSError as error:
            log.info("the result of reading %d images is not kept: %s", images, error)
            return make().arrays
        if (known := _read(path)) is not None:
            log.info("%d images have not changed since %s was written", images, path)
            return known
        found = make()
        if found.complete:
            _write(path, found.arrays)
        return found.arrays


def stamp(path: str) -> Stamp:
    """Path, size and time of change of a local file. Raises OSError where there is none."""
    found = os.stat(path)
    return path, found.st_size, found.st_mtime_ns


def _digest(key: Iterable[str], stamps: Iterable[Stamp]) -> str:
    digest = hashlib.sha256(repr((VERSION, tf.__version__, *key)).encode())
    for each in stamps:
        digest.update(repr(each).encode())
    return digest.hexdigest()[:32]


def _read(path: Path) -> Arrays | None:
    """The arrays of a file; None where there is none, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in file.files]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _write(path: Path, arrays: Arrays) -> None:
    try:
        with atomic_file(path) as part:
            np.savez_compressed(part, *arrays)
    except OSError as error:
        log.info("%s", error)

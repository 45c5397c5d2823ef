"""Files and folders that are written whole or not at all, and whether they can be."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inception_v1.errors import UserError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to and renames it to `path` at the end.

    Raises:
        OSError: the disk is full or the folder cannot be written; what was at `path` before is still whole.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            error.errno, f"Cannot write {str(path)!r} ({error.strerror}); what was there stays whole"
        ) from error
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def contended_file(path: Path) -> Iterator[Path]:
    """As `atomic_file`, for a path that several processes may write at once: each writes a file of its own, and the
    last one to end replaces the others. Makes the folder.

    Raises:
        OSError: the disk is full or the folder cannot be written; what was at `path` before is still whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as own:
        part = Path(own, path.name)
        yield part
        os.replace(part, path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder beside `path` to write to and renames it to `path` at the end; nothing may be at `path`.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left then.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir(parents=True)
        yield part
        os.rename(part, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"Cannot write {str(path)!r} ({reason}); nothing of it is left") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with atomic_file(path) as part:
        part.write_text(text, "utf-8")


def check_file(path: Path, suffixes: Sequence[str]) -> None:
    """Raises UserError where a file cannot be written: another ending than these, or a folder that does not exist."""
    if path.suffix.lower() not in suffixes:
        raise UserError(f"Expected a file ending in {' or '.join(suffixes)}; Received: {str(path)!r}.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"Expected a file in a folder that exists; Received: {str(path)!r}.")


def check_folder(path: Path) -> None:
    """Raises UserError where a folder cannot be made, since it or one above it is a file."""
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise UserError(f"Expected a folder; Received: {str(path)!r}, where {str(existing)!r} is a file.")

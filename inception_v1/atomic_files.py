"""Files and folders that are there whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to and renames it there at the end.

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
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Gives a new folder beside `path` to write to and renames it there at the end; nothing may be at `path`.

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

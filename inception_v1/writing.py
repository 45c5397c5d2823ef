"""Files that are there whole or not at all."""

import contextlib
import os
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

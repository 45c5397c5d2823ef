"""Image files by their names: those in a folder, and what to say of those that cannot be read."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from training.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")

log = logging.getLogger(__name__)


def is_image_file(path: Path) -> bool:
    """Whether a file is an image by its name, and not hidden as those that macOS leaves in archives (`._IMG.jpg`)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def is_visible_folder(name: str) -> bool:
    """Whether a folder is by its name neither hidden nor one that macOS leaves in archives."""
    return not name.startswith((".", "__MACOSX"))


def image_files(paths: Iterable[str]) -> list[str]:
    """The files among some paths, and the images in the folders among them and in their sub-folders.

    Args:
        paths: of files, whatever their names, and of folders, of which links are not followed.

    Returns:
        Each file once, in the order of `paths`; those of a folder sorted.

    Raises:
        UserError: a folder without images.
    """
    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        inside = []
        for folder, folders, names in os.walk(path):
            folders[:] = filter(is_visible_folder, folders)
            inside += [str(file) for name in names if is_image_file(file := Path(folder, name))]
        if not inside:
            raise UserError(f"Expected images ({', '.join(IMAGE_SUFFIXES)}) in {path!r}; Received: none.")
        found += sorted(inside)
    return list(dict.fromkeys(found))


def why_unreadable(file: str) -> str:
    """Why a file gave no image, as a clause."""
    if not os.path.isfile(file):
        return "which is no file"
    return "which is unreadable" if os.access(file, os.R_OK) else "which this user may not read"


def warn_of_failures(failed: Mapping[str, str], files: int) -> None:
    """Warns of each file that gave no image.

    Args:
        failed: path to why, as a clause.
        files: how many there are, those that gave an image included.

    Raises:
        UserError: no file gave an image.
    """
    if len(failed) < files:
        for file, reason in failed.items():
            log.warning("left out: %r, %s", file, reason)
        return
    first, reason = next(iter(failed.items()))
    others = f", and {files - 1} other files that are none either" if files > 1 else ""
    raise UserError(f"Expected a JPEG, PNG, GIF, BMP or WebP image; Received: {first!r}, {reason}{others}.")

"""Which images of a folder belong to which split of a run: a file that the run keeps."""

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

from inception_v1.atomic_files import write_text
from training.errors import UserError

COLUMNS = ("split", "image", "digest")


@dataclasses.dataclass(frozen=True)
class ImageList:
    """The images of each split of a run on a folder.

    Attributes:
        digests: by split and path in the folder, the digest of the file's bytes; None where it could not be read.
    """

    digests: Mapping[str, Mapping[str, int | None]]

    def write(self, path: Path) -> None:
        """Writes a CSV file, whole or not at all."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for split, images in self.digests.items():
            writer.writerows((split, image, "" if digest is None else digest) for image, digest in images.items())
        write_text(path, text.getvalue())

    def splits(self) -> dict[int, str]:
        """The split of each content, by its digest."""
        rows = ((digest, split) for split, images in self.digests.items() for digest in images.values())
        return {digest: split for digest, split in rows if digest is not None}


def read_image_list(path: Path) -> ImageList:
    """The list that `ImageList.write` wrote.

    Raises:
        UserError: another file.
    """
    digests: dict[str, dict[str, int | None]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file, strict=True)
            if tuple(next(rows, ())) != COLUMNS:
                raise ValueError
            for split, image, digest in rows:
                digests.setdefault(split, {})[image] = int(digest) if digest else None
    except (ValueError, csv.Error):  # UnicodeDecodeError is a ValueError
        raise UserError(f"Expected a list of images with the columns {', '.join(COLUMNS)}; Received: {path}.") from None
    return ImageList(digests)

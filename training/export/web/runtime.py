"""What a web export needs on this machine: the files of onnxruntime-web, and Node to verify the page with."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from training.errors import UserError
from training.export.web import fetch

NAME = f"onnxruntime-web {fetch.VERSION}"
SHIPPED = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
LICENSE = Path(__file__).with_name("onnxruntime_license.txt")
OLDEST_NODE = 18


def check_ready(unverified: bool) -> None:
    """Raises UserError where no web export can be made here.

    Args:
        unverified: whether the page may stay without verification in Node.
    """
    if not fetch.is_fetched():
        command = f"{Path(sys.executable).name} -m {fetch.__name__}"
        raise UserError(
            f"Expected the files of {NAME}, which {command} downloads with npm; Received: none in "
            f"{str(fetch.FOLDER)!r}."
        )
    if not unverified and node_version() is None:
        raise UserError(
            f"Expected Node.js {OLDEST_NODE} or later, which verifies a web export, or --unverified; "
            f"Received: no such node on the PATH."
        )


def node_version() -> str | None:
    """Version of the `node` on the PATH, such as "v20.20.2"; None where there is none, or one too old."""
    node = shutil.which("node")
    if node is None:
        return None
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.fullmatch(r"v(\d+)\..*", done.stdout.strip())
    return found[0] if found and int(found[1]) >= OLDEST_NODE else None


def copy_runtime(folder: Path) -> None:
    """Copies what a page needs of onnxruntime-web, with its license, into a new folder."""
    folder.mkdir()
    for name in SHIPPED:
        shutil.copyfile(fetch.FOLDER / name, folder / name)
    shutil.copyfile(LICENSE, folder / "LICENSE.txt")

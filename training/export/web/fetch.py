"""Fetches what web exports take of onnxruntime-web's npm packages: python -m training.export.web.fetch

It needs npm and this file alone, so that `setup.py` can run it where nothing else is installed. `npm pack` downloads
each package from the registry that npm is configured with, and nothing is unpacked that differs from the checksum here.
"""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VERSION = "1.30.0"
FOLDER = Path(__file__).parent / "onnxruntime"  # not in git: 14 MB
SECONDS = 300  # for a download


class Package(NamedTuple):
    """One package of npm.

    Attributes:
        name: of it.
        sha512: of its archive, in base64, as npm publishes it.
        files: {prefix of paths in the archive: folder for them in `FOLDER`}; of a folder those in JavaScript and JSON.
    """

    name: str
    sha512: str
    files: dict[str, str]


NODE = "node"  # folder of what runs the same wasm in Node, and of what that imports
COMMON = f"{NODE}/node_modules/onnxruntime-common"
PACKAGES = (
    Package(
        "onnxruntime-web",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        {
            "dist/ort.wasm.bundle.min.mjs": ".",
            "dist/ort-wasm-simd-threaded.wasm": ".",
            "dist/ort-wasm-simd-threaded.mjs": NODE,
            "dist/ort.node.min.mjs": NODE,
        },
    ),
    Package(
        "onnxruntime-common",
        "7fdVWjAID1dVhH/G8qK3APARunV4VkBFoCQAP7qp4Wkab0mrorvmc+sqiT+mKXOzDqdjN5j+/Z9nb4gzNPWcyA==",
        {"package.json": COMMON, "dist/esm/": f"{COMMON}/dist/esm"},
    ),
)


def fetch(folder: Path = FOLDER) -> None:
    """Downloads the files into `folder`, whole or not at all.

    Raises:
        RuntimeError: no npm, a download that failed, or an archive with another checksum.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("Expected npm (it comes with Node.js); Received: none on the PATH.")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for package in PACKAGES:
                _unpack(_download(npm, package, Path(scratch)), package, part)
        (part / "version.txt").write_text(f"{VERSION}\n", "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def is_fetched(folder: Path = FOLDER) -> bool:
    """Whether the files of this version are there."""
    version = folder / "version.txt"
    return version.is_file() and version.read_text("utf-8").strip() == VERSION


def _download(npm: str, package: Package, scratch: Path) -> bytes:
    command = [npm, "pack", f"{package.name}@{VERSION}", "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"Expected npm to download {package.name} within {SECONDS} s; Received: nothing.") from None
    archive = scratch / f"{package.name}-{VERSION}.tgz"
    if done.returncode or not archive.is_file():
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"Expected npm to download {package.name} {VERSION}; Received: {last}.")
    content = archive.read_bytes()
    found = base64.b64encode(hashlib.sha512(content).digest()).decode("ascii")
    if found != package.sha512:
        raise RuntimeError(
            f"Expected the archive of {package.name} {VERSION} with sha512 {package.sha512}; Received: {found}."
        )
    return content


def _unpack(content: bytes, package: Package, folder: Path) -> None:
    """Writes those files of an archive that `package` names."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive.getmembers():
            path = member.name.removeprefix("package/")
            place = next((place for prefix, place in package.files.items() if path.startswith(prefix)), None)
            if place is None or not member.isfile() or not path.endswith((".mjs", ".js", ".wasm", ".json")):
                continue
            target = folder / place / Path(path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = archive.extractfile(member)
            assert stream is not None  # `member` is a file
            target.write_bytes(stream.read())


if __name__ == "__main__" and not is_fetched():
    fetch()

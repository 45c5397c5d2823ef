"""Installs the wheel for real, without and with extras, and uses it: python -m tests.install_wheel (make test-wheel).

It takes a package index and a few minutes, so that the tests check the same on links to their own libraries
(`tests/test_installing.py`).
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests import test_installing as installed
from tests.helpers import wheels
from tests.oracles import torchvision

SMALL = ("--epochs", "2", "--warmup-epochs", "0", "--width-multiplier", "0.25")


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        distributions = wheels.build(folder)
        _run(sys.executable, "-m", "twine", "check", "--strict", *distributions)
        weights = torchvision.write(folder)
        core = _install(folder / "core", f"{distributions[1]}")
        names = (json.dumps([*installed.IMPORTS]), json.dumps([*installed.COMMANDS]))
        print(_run(core / "python", "-c", f"import sys\n{installed.NETWORK}{installed.MISSING}", weights, *names))
        print(_run(core / "googlenet", "--version"))
        full = _install(folder / "all", f"{distributions[1]}[all]")
        _run(full / "python", "-c", installed.EVERYTHING)
        run = folder / "run"
        print(_run(full / "googlenet", "train", *SMALL, "--out", run))
        print(_run(full / "googlenet", "export", run, "--to", "savedmodel,onnx,litert", "--out", folder / "exported"))


def _install(place: Path, requirement: str) -> Path:
    """The programs of a new environment with `requirement` alone."""
    venv.create(place, with_pip=True)
    _run(place / "bin" / "python", "-m", "pip", "install", "--quiet", requirement)
    print(_run(place / "bin" / "python", "-m", "pip", "list"))
    return place / "bin"


def _run(*command: object) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=tempfile.gettempdir(), stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()

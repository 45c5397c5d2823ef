"""The distributions of this project, and environments that hold a wheel and the libraries it declares, no others."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile

from packaging.requirements import Requirement

from tests.helpers import ROOT

SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md")
SOURCES += ("LICENSE", "SECURITY.md", "googlenet.py", "inception_v1", "training", "tuning", "interpretability")
BUILD = "from setuptools import build_meta; build_meta.build_sdist({0!r}); build_meta.build_wheel({0!r})"


def build(folder):
    """Builds the distributions of a copy of the sources; returns sdist and wheel."""
    copy, out = folder / "sources", folder / "dist"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-c", BUILD.format(str(out))], cwd=copy, check=True, capture_output=True)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def requirements(wheel, extras=()):
    """What a wheel requires with these extras, by the normalized name of the distribution."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().partition("\n\n")[0].splitlines()
    listed = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return _active(listed, extras)


def environment(wheel, folder, extras=()):
    """A folder for `sys.path` with the wheel, and links to what it requires of the libraries installed here."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    done, waiting = set(), list(requirements(wheel, extras).values())
    while waiting:
        requirement = waiting.pop()
        key = (normalized(requirement.name), *sorted(requirement.extras))
        if key in done:
            continue
        done.add(key)
        installed = importlib.metadata.distribution(requirement.name)
        for top in {file.parts[0] for file in installed.files} - {"..", "__pycache__"}:
            if not os.path.lexists(folder / top):
                (folder / top).symlink_to(installed.locate_file(top))
        waiting += _active(installed.requires or [], requirement.extras).values()
    return folder


def run(folder, code, *arguments, **variables):
    """The output of a program that finds Python's own modules and those in `folder`, and must end with status 0."""
    path = {key: os.environ[key] for key in ("PATH", "TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL")}
    program = f"import sys\nsys.path.append({str(folder)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, *map(str, arguments)],
        env=path | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def normalized(name):
    """The name of a distribution as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _active(listed, extras):
    parsed = [Requirement(text) for text in listed]
    return {
        normalized(one.name): one
        for one in parsed
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras or ("",))
    }

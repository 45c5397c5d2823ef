"""Imports point one way, as the README's last section draws them."""

import ast
import subprocess
import sys

import pytest

from tests.helpers import ROOT

# What each module of the network may import of it.
INCEPTION_V1 = {
    "spec": set(),
    "layers": set(),
    "multiworker": set(),
    "cost": {"spec"},
    "preprocessing": {"spec"},
    "writing": set(),
    "summary": {"spec", "cost", "writing"},
    "model": {"spec", "layers", "multiworker", "weights"},
    "folding": {"layers", "model"},
    "weights": {"spec", "cost", "preprocessing", "model", "writing"},
    "__init__": {"spec", "cost", "model", "preprocessing", "weights"},
}


def imported(path, top_level=False):
    """Dotted names that a file imports; with `top_level` only those that importing it imports."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", modules("inception_v1"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_network_imports_downwards_and_tensorflow_only_when_needed(path):
    part = path.relative_to(ROOT / "inception_v1").parts[0].removesuffix(".py")
    names = list(imported(path))
    own = {name.split(".")[1] for name in names if name.startswith("inception_v1.")} & set(INCEPTION_V1)
    assert own <= INCEPTION_V1[part] | {part}
    assert not [name for name in names if name.split(".")[0] in ("training", "tuning", "googlenet")]
    assert not [name for name in imported(path, top_level=True) if name.split(".")[0] == "tensorflow"]


@pytest.mark.parametrize("path", modules("training"), ids=lambda p: str(p.relative_to(ROOT)))
def test_training_imports_neither_tuning_nor_the_command_line(path):
    assert not [name for name in imported(path) if name.split(".")[0] in ("tuning", "googlenet", "tests", "benchmarks")]


@pytest.mark.parametrize("path", modules("tuning"), ids=lambda p: str(p.relative_to(ROOT)))
def test_tuning_does_not_import_the_command_line(path):
    assert not [name for name in imported(path) if name.split(".")[0] in ("googlenet", "tests", "benchmarks")]


def test_spaces_need_neither_keras_nor_tensorflow_where_they_are_sampled():
    own = set(imported(ROOT / "tuning" / "space.py", top_level=True))
    assert not {name for name in own if name.split(".")[0] in ("keras", "tensorflow", "keras_tuner")}


def test_the_command_line_imports_lazily():
    heavy = {"keras", "tensorflow", "matplotlib", "inception_v1", "training.train", "training.report.figures", "tuning"}
    assert not heavy & set(imported(ROOT / "googlenet.py", top_level=True))
    code = "import sys, googlenet; print([m for m in ('keras', 'tensorflow', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Rendering on Keras' JAX backend, in a process of its own."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytest.importorskip("jax")

JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
FILES = (
    *("parameterizations", "transforms", "relu_gradient", "objectives", "rendering", "attribution"),
    *("activation_samples", "caricatures", "branches"),
)


def test_every_test_marked_for_it_passes_on_jax():
    files = [f"tests/interpretability/test_{name}.py" for name in FILES]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-vv", "-m", "every_backend"]
    done = subprocess.run(
        [*command, *files], env=os.environ | JAX, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.findall(r"^tests/interpretability/test_(\w+)\.py::\S.* PASSED", done.stdout, re.M)
    assert set(passed) == set(FILES)
    assert len(passed) > 60

"""The network on Keras' JAX backend, in processes of its own; and by itself it imports no TensorFlow there."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytest.importorskip("jax")

# XLA's optimization takes most of the time of such small networks, and does not change what is tested here.
JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
FAMILIES = ("caffe", "torchvision", "slim", "onnx-floor", "inception5h")  # of published weights


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | JAX, cwd=ROOT, capture_output=True, text=True, check=False
    )


def passed(*arguments):
    """How many tests pass on JAX, where none fails; and how many were skipped."""
    done = run("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments)
    assert done.returncode == 0, done.stdout[-5000:]
    counts = dict(re.findall(r"(\d+) (passed|skipped)", done.stdout.splitlines()[-1]))
    return {kind: int(count) for count, kind in counts.items()}


def test_every_test_marked_for_it_passes_on_jax():
    """All of the layers' tests, and of the model's those that do not take the same path as another one."""
    files = [f"tests/inception_v1/test_{name}.py" for name in ("layers", "tensorflow_layers", "model")]
    listed = run("-m", "pytest", "-p", "no:xdist", "--collect-only", "-q", "-m", "every_backend", *files)
    marked = sum(map(int, re.findall(r"\.py: (\d+)$", listed.stdout, re.M)))
    of_tensorflow_alone = 4
    assert marked > 50
    assert passed("-m", "every_backend", *files) == {
        "passed": marked - of_tensorflow_alone,
        "skipped": of_tensorflow_alone,
    }


def test_published_weights_of_every_family_give_the_same_logits_on_jax():
    test = "tests/inception_v1/weights/test_parity.py::test_logits_are_those_of_the_original"
    assert passed(*(f"{test}[{family}-224x224]" for family in FAMILIES)) == {"passed": len(FAMILIES)}


def test_importing_the_network_imports_no_tensorflow():
    code = (
        "import sys, inception_v1; inception_v1.build_googlenet(input_shape=(32, 32, 1), width_multiplier=0.1);"
        "print('tensorflow' in sys.modules)"
    )
    done = run("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr

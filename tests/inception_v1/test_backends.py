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
TESTS = "tests/inception_v1/"
FAMILIES = ("caffe", "torchvision", "slim", "onnx-floor", "inception5h")  # of published weights
OF_TENSORFLOW_ALONE = {
    "test_rematerialized_activations_give_the_same_gradients",
    "test_activations_are_rematerialized_in_every_graph_of_a_gradient",
    "test_the_gradient_of_the_first_kernel_needs_no_gradient_of_the_images",
}


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | JAX, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_every_test_marked_for_it_passes_on_jax():
    """All of the layers' tests, of the model's those that do not take the same path as another one, slimmed networks of
    two families, and the logits of published weights of every family."""
    names = ("test_layers", "test_tensorflow_layers", "test_model", "test_slimming", "weights/test_parity")
    files = [f"{TESTS}{name}.py" for name in names]
    done = run("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-vv", "-m", "every_backend", *files)
    assert done.returncode == 0, done.stdout[-5000:]
    results = re.findall(rf"^{TESTS}\S+::(test_\w+)(?:\[(.+)\])? (PASSED|SKIPPED)", done.stdout, re.M)
    assert {name for name, _, result in results if result == "SKIPPED"} == OF_TENSORFLOW_ALONE
    assert sum(result == "PASSED" for *_, result in results) > 70
    logits = {case for name, case, _ in results if name == "test_logits_are_those_of_the_original"}
    assert logits == {f"{family}-224x224" for family in FAMILIES}


def test_importing_the_network_imports_no_tensorflow():
    code = (
        "import sys, inception_v1; inception_v1.build_googlenet(input_shape=(32, 32, 1), width_multiplier=0.1);"
        "print('tensorflow' in sys.modules)"
    )
    done = run("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr

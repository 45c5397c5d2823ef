"""The network runs on Keras' other backends, and by itself imports no TensorFlow."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

# XLA's optimisation takes most of the time of such small networks, and says nothing about what is tested here.
JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run(*arguments):
    environment = {**os.environ, **JAX}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_layers_and_model_pass_on_jax():
    pytest.importorskip("jax")
    # What says nothing about the backend, costs minutes there, or takes a path that another one takes too: labels as a
    # dict go through that of plain ones, float16 through that of bfloat16 (and scales the loss), a few steps through
    # that of one head, "paper" through all but the batch normalisation of the others.
    skip = (
        "datasets reloads pools_round unknown_size one-hot refuse explicit sample_weight every_head published "
        "heads_sit column integers one_head mixed_bfloat16 sum_of_the_heads[batchnorm"
    )
    files = ("tests/test_layers.py", "tests/test_model.py")
    done = run(
        "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", f"not ({' or '.join(skip.split())})", *files
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


def test_published_weights_give_the_same_logits_on_jax():
    pytest.importorskip("jax")
    cases = ("caffe", "torchvision", "slim", "onnx-floor", "inception5h")
    wanted = [f"tests/test_parity.py::test_logits_are_those_of_the_original[{case}-224x224]" for case in cases]
    done = run("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *wanted)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


def test_importing_the_network_imports_no_tensorflow():
    pytest.importorskip("jax")
    code = (
        "import sys, inception_v1; inception_v1.build_googlenet(input_shape=(32, 32, 1), width_multiplier=0.1);"
        "print('tensorflow' in sys.modules)"
    )
    done = run("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr

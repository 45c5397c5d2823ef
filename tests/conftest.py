import gc
import os
import sys

# TensorFlow reads these when it is imported, so they are set before any test module.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

# At Python's threshold of 700 allocations, collecting garbage takes 6 % of a test's time, since each collection walks
# through the objects of traced networks.
gc.set_threshold(7000, 10, 10)

# Triton, which PyTorch imports where the extra of benchmarks brought it, crashes beside TensorFlow (3.8 beside 2.21).
sys.modules["triton"] = None


def pytest_addoption(parser):
    parser.addoption(
        "--interruptions", type=int, default=2, help="How often tests/training/test_interruptions.py stops its run."
    )


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where TFDS prepares datasets during the tests."""
    return str(tmp_path_factory.mktemp("tensorflow_datasets"))


@pytest.fixture
def recipe(data_dir):
    """A small run on digits."""
    import dataclasses

    from training.presets import PRESETS

    return dataclasses.replace(
        PRESETS["digits"],
        data_dir=data_dir,
        variant="plain",
        aux=False,
        epochs=4,
        train_split="train[:64]",
        validation_split="test[:9]",
    )


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves out the drawing of a run's figures, which takes a tenth of such a run."""
    from training.report import figures

    monkeypatch.setattr(figures, "save", lambda figure, path: path.write_bytes(b"figure"))


@pytest.fixture(scope="module")
def few_blocks():
    """Gives all networks of a test file a few blocks in place of nine, where it is not about how many they have."""
    from tests.helpers import blocks

    with blocks.few_blocks():
        yield


@pytest.fixture
def all_blocks():
    """Gives the networks of one test in such a file all nine blocks."""
    from tests.helpers import blocks

    with blocks.all_blocks():
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory, data_dir):
    """A run on digits, the folder of its first export in every form, and its model card."""
    from tests.helpers.blocks import few_blocks
    from tests.helpers.runs import save_run
    from training.export.export import export

    root = tmp_path_factory.mktemp("exported")
    with few_blocks():
        run = save_run(root / "run", data_dir, test_split="test[:40]")
        card = export(run, root / "digits", to="savedmodel,onnx,litert", batching=8)
    return run, root / "digits" / "1", card


@pytest.fixture(scope="session", autouse=True)
def _kernels_of_numpy():
    """On JAX, draws new kernels by NumPy: XLA would compile an initializer for every shape, 10 s for a network."""
    import keras
    import numpy as np

    original = keras.initializers.VarianceScaling.__call__

    def uniform(self, shape, dtype=None):
        if (self.mode, self.distribution) != ("fan_in", "uniform"):  # not one of ours
            return original(self, shape, dtype)
        limit = (3 * self.scale / np.prod(shape[:-1])) ** 0.5
        return keras.ops.convert_to_tensor(np.random.default_rng(self.seed).uniform(-limit, limit, shape), dtype)

    with pytest.MonkeyPatch.context() as patch:
        if keras.backend.backend() == "jax":
            patch.setattr(keras.initializers.VarianceScaling, "__call__", uniform)
        yield


@pytest.fixture(scope="module", autouse=True)
def _freeze_garbage():
    """Exempts TensorFlow's modules and what earlier test files left behind from garbage collection, which would walk
    through them again and again (0.3 to 2 s each)."""
    import keras  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_keras():
    import keras

    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session(free_memory=False)  # garbage is collected after each module

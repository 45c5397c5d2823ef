import gc
import weakref

import pytest

from tests.helpers.networks import trained_network
from training.export import litert, memory, onnx_file, savedmodel
from training.export.export_model import ExportModel


class Copy:
    """An object that refers to itself, as converters' graphs do."""

    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def only_explicit_collection():
    """Also of what `tests/conftest.py` has frozen."""
    gc.unfreeze()
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.freeze()


def test_only_what_is_left_in_cycles_inside_is_released():
    before = weakref.ref(Copy())
    with memory.released():
        inside = weakref.ref(Copy())
        assert gc.get_freeze_count() > 0
        assert inside() is not None
    assert inside() is None
    assert before() is not None  # which was not looked at
    assert gc.get_freeze_count() == 0


def test_what_a_caller_has_frozen_stays_frozen():
    gc.freeze()
    try:
        with memory.released():
            inside = weakref.ref(Copy())
        assert inside() is None
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_nothing_stays_frozen_after_an_error():
    @memory.released()
    def convert():
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        convert()
    assert gc.get_freeze_count() == 0


@pytest.fixture(scope="module")
def network():
    return ExportModel(trained_network("batchnorm", input_shape=(32, 32, 3)), list("abcdefg"))


def test_every_conversion_releases_its_graphs(network, monkeypatch, tmp_path):
    graphs = []

    def remember(module, name):
        original = getattr(module, name)

        def call(*arguments, **options):
            graphs.append(weakref.ref(Copy()))
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    remember(onnx_file.tf2onnx.convert, "from_function")
    remember(savedmodel.tf.saved_model, "save")
    remember(litert.tf.lite.TFLiteConverter, "from_concrete_functions")
    onnx_file.convert(network)
    litert.convert(network, "float32")
    (tmp_path / savedmodel.LABELS).write_text("\n".join(network.labels))
    savedmodel.write(tmp_path, network, 3, float_only=True)
    assert len(graphs) == 3
    assert all(graph() is None for graph in graphs)

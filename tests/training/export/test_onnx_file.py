import json
import os

import numpy as np
import onnx
import onnxruntime
import pytest
import tf2onnx

from tests.helpers.images import patch_images
from tests.helpers.networks import trained_network
from training.export import onnx_file
from training.export.export_model import ExportModel

PIXELS = patch_images(6, 64, 64, 3, seed=1)


def network_of(variant, size=64):
    return ExportModel(trained_network(variant, input_shape=(size, size, 3)), list("abcdefg"))


@pytest.fixture(scope="module", params=["paper", "torchvision", "slim"])
def network(request):
    return network_of(request.param)


def run(model, image, optimized=True):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": image})[0]


def test_an_optimizer_that_fails_is_not_passed_over(monkeypatch):
    class Broken:
        def optimize(self, graph, iteration):
            raise LookupError("broken")

    monkeypatch.setitem(tf2onnx.optimizer._optimizers, "remove_identity", Broken)
    monkeypatch.setenv("TF2ONNX_CATCH_ERRORS", "TRUE")
    with pytest.raises(LookupError, match="broken"):
        onnx_file.convert(network_of("batchnorm", 32))
    assert os.environ["TF2ONNX_CATCH_ERRORS"] == "TRUE"  # as it was


@pytest.mark.parametrize(("nchw", "preprocessing"), [(False, False), (True, True)])
def test_onnxruntime_gives_the_probabilities_of_keras(network, nchw, preprocessing):
    model = onnx_file.convert(network, nchw, preprocessing)
    expected = network.expected(PIXELS)["probabilities"]
    assert expected.std(axis=0).max() > 0.05  # not the same for every image
    image = PIXELS.astype("float32")
    image = image if preprocessing else (image - network.mean) / network.std
    image = image.transpose(0, 3, 1, 2) if nchw else image
    for part in (slice(0, 1), slice(1, 6)):  # batches of 1 and 5
        for optimized in (True, False):
            np.testing.assert_allclose(run(model, image[part], optimized), expected[part], rtol=0, atol=1e-5)
    assert onnx_file.describe(model) == {
        "inputs": {"image": ["float32", ["N", 3, 64, 64] if nchw else ["N", 64, 64, 3]]},
        "outputs": {"probabilities": ["float32", ["N", 7]]},
    }


def test_the_metadata_describe_the_file(network):
    model = onnx_file.convert(network, nchw=True)
    (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    assert opset == 18
    onnx.checker.check_model(model, full_check=True)
    known = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(known["labels"]) == list("abcdefg")
    assert (known["layout"], known["colors"]) == ("NCHW", "RGB")
    assert json.loads(known["mean"]) == pytest.approx(network.mean.tolist())
    assert json.loads(known["std"]) == pytest.approx(network.std.tolist())


@pytest.mark.parametrize("variant", ["paper", "slim"])
def test_the_graph_is_as_short_as_the_network(variant):
    """The graph has no operations beside the convolutions but those of the LRN, and transposes no large feature map."""
    network = network_of(variant, size=96)  # at 64 the last feature map of some is one pixel, and its pool does nothing
    kinds = [node.op_type for node in onnx_file.convert(network, nchw=True).graph.node]
    convolutions = sum(len(layer.kernel.shape) == 4 for layer in network.net.layers if hasattr(layer, "kernel"))
    lrns = sum(layer.name.endswith(("norm1", "norm2")) for layer in network.net.layers)
    assert lrns in (0, 2)
    assert kinds.count("Conv") == convolutions + lrns
    assert kinds.count("Sqrt") == 2 * lrns
    assert kinds.count("Reciprocal") == lrns
    assert not {"LRN", "BatchNormalization", "Pow", "Div", "Identity", "Cast", "Shape", "Reshape"} & set(kinds)
    # Before the last pool, whose feature map is small.
    assert kinds.count("Transpose") <= 1
    assert [node.op_type for node in onnx_file.convert(network).graph.node].count("Transpose") <= 2

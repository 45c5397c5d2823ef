import numpy as np
import onnx
import onnxruntime
import pytest

from tests.helpers.blocks import all_blocks
from tests.helpers.images import patch_images
from tests.helpers.networks import trained_network
from tests.helpers.runs import save_run
from training.export import onnx_file, onnx_precisions
from training.export.export import export
from training.export.export_model import ExportModel

PIXELS = patch_images(24, 32, 32, 1, seed=1).astype("float32")


@pytest.fixture(scope="module", params=[("batchnorm", False), ("paper", True)])
def case(request):
    """A network of all blocks and its float32 file; the paper's, with its response normalization, of images in NCHW."""
    variant, nchw = request.param
    with all_blocks():
        network = ExportModel(trained_network(variant, input_shape=(32, 32, 1), classes=6), list("abcdef"))
    images = (PIXELS - network.mean) / network.std
    images = images.transpose(0, 3, 1, 2) if nchw else images
    return network, onnx_file.convert(network, nchw), images.astype("float32")


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": images})[0]


def test_each_precision_is_as_close_as_its_bits_allow(case):
    network, model, images = case
    expected = network.expected(PIXELS.astype("uint8"))["probabilities"]
    assert expected.std(axis=0).max() > 0.05
    sizes = [len(model.SerializeToString())]
    half, eighth = onnx_precisions.to_float16(model), onnx_precisions.to_int8(model, images)
    for converted, within, in_mean in ((half, 0.02, 0.002), (eighth, 0.35, 0.08)):
        sizes.append(len(converted.SerializeToString()))
        assert onnx_file.describe(converted) == onnx_file.describe(model)
        assert list(converted.metadata_props) == list(model.metadata_props)
        found = np.concatenate([run(converted, images[part]) for part in (slice(0, 1), slice(1, 24))])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=within)
        assert abs(found - expected).mean() < in_mean
    assert sizes[0] > 1.7 * sizes[1]
    assert sizes[0] > sizes[2]  # of so small a network, the added nodes count


def test_int8_quantizes_every_convolution_by_filter(case):
    _, model, images = case
    converted = onnx_precisions.to_int8(model, images)
    made_by = {output: node for node in converted.graph.node for output in node.output}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in converted.graph.initializer}
    convolutions = [node for node in converted.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in model.graph.node)
    for node in convolutions:
        image, kernel = (made_by[name] for name in node.input[:2])
        assert (image.op_type, kernel.op_type) == ("DequantizeLinear", "DequantizeLinear")
        weights, scales = (values[name] for name in kernel.input[:2])
        assert weights.dtype == np.int8
        assert abs(weights.astype("int32")).max() <= 64  # 7 bits, whose products do not overflow 16 in pairs
        assert scales.shape == weights.shape[:1]


def test_ranges_are_those_of_the_calibration_images(case):
    """Images of a thousandth of the size make ranges that cut others off."""
    _, model, images = case
    before = run(model, images)
    errors = [abs(run(onnx_precisions.to_int8(model, images / n), images) - before).mean() for n in (1, 1000)]
    assert errors[0] < 0.06 < errors[1]


def test_an_export_verifies_and_scores_further_precisions(data_dir, tmp_path):
    source = save_run(tmp_path / "run", data_dir, variant="paper", test_split="test[:80]")
    card = export(source, tmp_path / "digits", to="onnx", precisions=("float16", "int8"))
    assert set(card["parity"]) == {"onnx", "onnx/float16", "onnx/int8"}
    assert card["parity"]["onnx"]["images"] == 64
    assert card["parity"]["onnx/int8"]["images"] == 80
    assert set(card["accuracy"]) == {"keras", "onnx/float16", "onnx/int8"}
    assert {"model.onnx", "model_float16.onnx", "model_int8.onnx"} < set(card["files"])
    text = (tmp_path / "digits" / "1" / "README.md").read_text("utf-8")
    assert "ONNX int8, `model_int8.onnx`" in text


def test_int8_of_a_file_is_refused(tmp_path):
    file = tmp_path / "network.keras"
    trained_network("batchnorm", input_shape=(32, 32, 1)).save(file)
    with pytest.raises(ValueError, match="measured on a run's training split, and this is a file"):
        export(file, tmp_path / "out", to="onnx", precisions=("int8",))
    assert not (tmp_path / "out").exists()

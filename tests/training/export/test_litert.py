import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from inception_v1.spec import Spec
from tests.helpers.images import patch_images
from tests.helpers.networks import trained_network
from tests.helpers.runs import save_run
from training.export import export as exports
from training.export import litert
from training.export.export_model import ExportModel
from training.export.precisions import choose_precisions
from training.export.samples import comparison_samples
from training.run_folder import RunFolder


@pytest.fixture(scope="module")
def network():
    model = trained_network("batchnorm", input_shape=(32, 32, 1), classes=6)
    return ExportModel(model, list("abcdef"))


PIXELS = patch_images(12, 32, 32, 1, seed=1).astype("float32")


def run(content, image):
    return Interpreter(model_content=content).get_signature_runner()(image=image)["probabilities"]


@pytest.mark.parametrize("preprocessing", [False, True])
def test_each_precision_is_as_close_as_its_bits_allow(network, preprocessing):
    images = PIXELS if preprocessing else (PIXELS - network.mean) / network.std
    expected = network.expected(PIXELS.astype("uint8"))["probabilities"]
    assert expected.std(axis=0).max() > 0.05
    sizes = {}
    for precision, within in (("float32", 1e-5), ("float16", 0.01), ("dynamic", 0.1), ("int8", 0.15)):
        content = litert.convert(network, precision, preprocessing, images)
        sizes[precision] = len(content)
        for part in (slice(0, 1), slice(1, 12)):
            found = run(content, images[part])
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected[part], rtol=0, atol=within, err_msg=precision)
    assert sizes["float32"] > sizes["float16"] > sizes["dynamic"] > sizes["int8"]


def test_int8_is_refused_where_the_response_normalization_would_stay_float(data_dir, tmp_path, monkeypatch):
    paper = ExportModel(trained_network("paper", input_shape=(32, 32, 1), classes=6), list("abcdef"))
    message = "response normalization of variant 'paper' would stay float"
    with pytest.raises(ValueError, match=message):
        litert.convert(paper, "int8", representative=PIXELS)
    run_of_lrn = save_run(tmp_path / "run", data_dir, variant="paper", test_split="test[:20]")
    with pytest.raises(ValueError, match=message):
        exports.export(run_of_lrn, tmp_path / "out", to="litert", precisions=("float32", "int8"))
    assert not (tmp_path / "out").exists()
    # The check of the operations themselves refuses it too.
    monkeypatch.setattr(litert, "int8_refusal", lambda spec: None)
    with pytest.raises(ValueError, match=r"int8 form; Received: float .*pool1"):
        litert.convert(paper, "int8", representative=PIXELS)


def test_int8_is_left_out_with_its_reason_where_it_was_not_asked_for():
    of_lrn = choose_precisions(["litert"], None, Spec("paper"), of_run=True)
    assert of_lrn.litert == ("float32", "float16", "dynamic")
    assert "would stay float" in of_lrn.refused["litert/int8"]
    of_file = choose_precisions(["litert"], None, Spec("plain"), of_run=False)
    assert of_file.litert == of_lrn.litert
    assert "training split" in of_file.refused["litert/int8"]
    with pytest.raises(ValueError, match=r"a network that can be int8; Received: its ranges"):
        choose_precisions(["litert"], ("int8",), Spec("plain"), of_run=False)
    of_run = choose_precisions(["litert", "onnx"], None, Spec("plain"), of_run=True)
    assert (of_run.litert, of_run.onnx, of_run.refused) == (litert.PRECISIONS, (), {})


def test_the_card_has_the_accuracy_of_each_precision(exported):
    run_folder, folder, card = exported
    run_ = RunFolder(run_folder)
    network = ExportModel(run_.model(), run_.classes())
    samples = comparison_samples(run_, network, 40)
    assert set(card["accuracy"]) == {"keras", *(f"litert/{precision}" for precision in litert.PRECISIONS)}
    images = (samples.pixels.astype("float32") - network.mean) / network.std
    for form, scores in card["accuracy"].items():
        if form == "keras":
            p = network.expected(samples.pixels)["probabilities"]
        else:
            p = run((folder / f"model_{form.removeprefix('litert/')}.tflite").read_bytes(), images)
        own = p[np.arange(40), samples.labels]
        assert scores["images"] == 40
        assert scores["top1"] == pytest.approx((p.argmax(axis=1) == samples.labels).mean())
        assert scores["loss"] == pytest.approx(-np.log(np.maximum(own, np.finfo("float32").tiny)).mean(), rel=1e-3)

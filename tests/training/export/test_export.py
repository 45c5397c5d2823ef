import ast
import hashlib
import json
import re
import resource
import shutil
from pathlib import Path

import filelock
import keras
import numpy as np
import pytest

import googlenet
import training
from inception_v1 import build_googlenet
from tests.training.evaluation.test_evaluate import save_run
from training.evaluation import evaluate
from training.export import export as exports
from training.export import export_model as inference
from training.export import savedmodel as saved_model
from training.export.export import export
from training.export.export_model import Inference
from training.run_folder import RunFolder


def versions(out):
    return sorted(path.name for path in out.iterdir() if path.name.isdecimal())


def test_the_card_says_what_the_export_is(exported):
    run, folder, card = exported
    assert json.loads((folder / "model_card.json").read_text("utf-8")) == card
    assert (card["name"], card["version"], card["source"]) == ("digits", 1, str(run))
    assert card["classes"] == (folder / "labels.txt").read_text().splitlines() == RunFolder(run).classes()
    assert card["network"]["multiply_accumulates"] == 507_744
    assert set(card["parity"]) == {
        "savedmodel/serving_default",
        "savedmodel/predict_images",
        "savedmodel/predict_images_uint8",
        "onnx",
        *(f"litert/{precision}" for precision in ("float32", "float16", "dynamic", "int8")),
    }
    for form, near in card["parity"].items():
        assert near["images"] == 40
        if form not in ("litert/float16", "litert/dynamic", "litert/int8"):
            assert near["probabilities"] < 1e-5, form
            assert near["logits"] < 1e-5, form
    text = (folder / "README.md").read_text("utf-8")
    assert "serving_default" in text
    assert "| litert/int8 |" in text


def test_every_file_is_listed_with_its_checksum(exported):
    _, folder, card = exported
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == set(card["files"]) | {"model_card.json", "README.md"}
    for name, known in card["files"].items():
        content = (folder / name).read_bytes()
        assert known == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_weights_are_stored_once(exported):
    _, _, card = exported
    weights = 4 * card["network"]["parameters"]
    for file in ("saved_model.pb", "model.onnx", "model_float32.tflite"):
        assert weights <= card["files"][file]["bytes"] < weights + 300_000, file
    assert card["files"]["model_float16.tflite"]["bytes"] < 0.65 * card["files"]["model_float32.tflite"]["bytes"]


def test_versions_count_on_and_a_broken_off_one_is_cleared_away(exported, tmp_path, capsys):
    run, _, _ = exported
    out = tmp_path / "digits"
    (out / "7").mkdir(parents=True)
    (out / ".8.part" / "assets").mkdir(parents=True)  # of a process that was killed
    assert training.export(run, out, to="onnx")["version"] == 8
    assert versions(out) == ["7", "8"]
    assert not (out / ".8.part").exists()
    with pytest.raises(ValueError, match="Expected a new version; Received: 7"):
        export(run, out, to="onnx", version=7)
    flags = ["--version", "3", "--nchw", "--preprocessing"]
    assert googlenet.main(["export", str(run), "--to", "onnx", "--out", str(out), *flags]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "3")
    known = json.loads((out / "3" / "model_card.json").read_text("utf-8"))["formats"]["onnx"]
    assert (known["layout"], known["pixels"]) == ("NCHW", "0-255")


def test_nothing_has_a_versions_name_before_it_was_compared(exported, tmp_path, monkeypatch):
    seen, verified = [], exports.verified

    def watched(folder, *rest):
        seen.append(versions(tmp_path / "digits"))
        assert (folder / "model.onnx").is_file()
        return verified(folder, *rest)

    monkeypatch.setattr(exports, "verified", watched)
    export(exported[0], tmp_path / "digits", to="onnx")
    assert (seen, versions(tmp_path / "digits")) == ([[]], ["1"])


def test_two_exports_do_not_write_to_one_place(exported, tmp_path):
    (tmp_path / "digits").mkdir()
    lock = filelock.FileLock(tmp_path / "digits" / ".lock")
    with lock, pytest.raises(ValueError, match="no other export is using"):
        export(exported[0], tmp_path / "digits", to="onnx")
    assert versions(tmp_path / "digits") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "onxx"}, r"Expected target to be one of .*Did you mean 'onnx'"),
        ({"to": ()}, "at least one target"),
        ({"to": "onnx", "float_only": True}, "'savedmodel' among the targets with float_only; Received"),
        ({"to": "savedmodel", "nchw": True}, "'onnx' among the targets with nchw"),
        ({"to": "onnx", "precisions": ("int8",)}, "'litert' among the targets with precisions"),
        ({"to": "litert", "precisions": ("int4",)}, "precision to be one of"),
        ({"version": 0}, "version to be 1 or more; Received: version=0"),
        ({"top": 0}, "top to be 1 or more; Received: top=0"),
        ({"class_names": ["a", "b"]}, "Expected 10 class names, one a class; Received: 2"),
        ({"class_names": ["a\nb", *"cdefghijk"]}, r"class names of one line each; Received: 'a\\nb'"),
    ],
)
def test_bad_arguments_are_refused_and_leave_nothing(exported, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export(exported[0], tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_bad_sources_and_places_are_refused_and_leave_nothing(exported, tmp_path, data_dir, capsys):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="Expected the folder of a run"):
        export(tmp_path / "absent", out)
    with pytest.raises(ValueError, match=r"a run with a trained model.*no best\.keras yet"):
        export(save_run(tmp_path / "run", data_dir, model=False), out)
    with pytest.raises(ValueError, match="auxiliary heads to keep"):
        export(save_run(tmp_path / "bare", data_dir, aux=False), out, keep_aux=True)
    with pytest.raises(ValueError, match=r"a GoogLeNet in a \.keras file"):
        export(exported[1] / "labels.txt", out)
    build_googlenet("plain", input_shape=(64, 96, 3), aux=False, width_multiplier=0.1).save(tmp_path / "wide.keras")
    with pytest.raises(ValueError, match="square images; Received: 64x96"):
        export(tmp_path / "wide.keras", out)
    assert not out.exists()
    with pytest.raises(ValueError, match=r"Expected a folder; Received: .*is a file"):
        export(exported[0], tmp_path / "wide.keras" / "out")
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\n")
    assert googlenet.main(["export", str(exported[0]), "--out", str(out), "--classes", str(names)]) == 2
    assert "Expected 10 class names, one a class; Received: 2." in capsys.readouterr().err


@pytest.mark.parametrize("target", ["savedmodel", "onnx"])
def test_a_full_disk_leaves_nothing(exported, tmp_path, target):
    """The system refuses files above a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(OSError, match=r"Cannot write .*nothing of it is left"):
            export(exported[0], tmp_path / "out", to=target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["savedmodel", "onnx", "litert"])
def test_a_mismatch_names_the_layer_and_deletes_the_export(exported, tmp_path, target, monkeypatch, capsys):
    folded = inference.folded

    def spoilt(model, aux):
        net = folded(model, aux)
        layer = net.get_layer("inception_4b_3x3")
        layer.set_weights([weight * 1.05 for weight in layer.get_weights()])
        return net

    monkeypatch.setattr(inference, "folded", spoilt)
    few = {"savedmodel": ["--float-only"], "onnx": [], "litert": ["--precisions", "float32"]}[target]
    assert googlenet.main(["export", str(exported[0]), "--to", target, "--out", str(tmp_path / "out"), *few]) == 2
    error = capsys.readouterr().err
    assert "to agree with the Keras model" in error
    assert "first different at layer inception_4b_3x3;" in error
    assert not list(tmp_path.iterdir())


def test_a_broken_file_is_noticed(exported):
    """Also where what was written is right and the file is not."""
    import onnx
    from onnx import numpy_helper

    run, folder, card = exported
    network = Inference(RunFolder(run).model(), RunFolder(run).classes())
    samples = exports._test_samples(RunFolder(run), network, 8)
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    model = onnx.load(copy / "model.onnx")
    (convolution,) = (node for node in model.graph.node if re.fullmatch(".*3b_5x5_reduce.*/convolution", node.name))
    (kernel,) = (weight for weight in model.graph.initializer if weight.name == convolution.input[1])
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * 1.1, kernel.name))
    onnx.save(model, copy / "model.onnx")
    with pytest.raises(ValueError, match=r"Expected onnx to agree.*at layer inception_3b_5x5_reduce;"):
        exports.verified(copy, card | {"formats": {"onnx": card["formats"]["onnx"]}}, network, samples)
    (copy / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"to run in a fresh process; Received: .*it is deleted"):
        exports.verified(copy, card | {"formats": {"onnx": card["formats"]["onnx"]}}, network, samples)
    shutil.rmtree(copy)


def test_the_fresh_process_knows_nothing_of_this_package():
    tree = ast.parse(Path(exports.reload.__file__).read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in imported} & {"keras", "inception_v1", "training", "googlenet"}


def test_compared_tells_the_largest_difference():
    expected = {"probabilities": np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5]])}
    found = {"probabilities": np.array([[0.7, 0.2, 0.1], [0.1, 0.44, 0.46]])}
    near = exports.compared(found, expected)
    assert near["probabilities"] == pytest.approx(0.16)
    assert near["logits"] == pytest.approx(np.log(0.46 / 0.3) / -np.log(0.1))
    assert near["same_class"] == 0.5
    tied = {"probabilities": np.array([[0.4, 0.4 - 1e-6, 0.2]])}
    assert exports.compared({"probabilities": tied["probabilities"][:, [1, 0, 2]]}, tied)["same_class"] == 1
    assert exports.compared({"probabilities": np.full((1, 3), np.nan)}, expected)["probabilities"] == np.inf


def test_a_keras_file_is_exported_with_its_heads(tmp_path):
    model = build_googlenet("paper", input_shape=(96, 96, 3), classes=3, width_multiplier=0.1, class_names=list("abc"))
    model.save(tmp_path / "net.keras")
    card = export(tmp_path / "net.keras", tmp_path / "out", to="savedmodel,onnx", keep_aux=True, float_only=True)
    assert card["classes"] == ["a", "b", "c"]
    assert card["network"]["heads"] == ["main", "aux1", "aux2"]
    assert set(card["formats"]["onnx"]["outputs"]) == {"probabilities", "aux1", "aux2"}
    assert card["parity"]["onnx"]["probabilities"] < 1e-5
    assert "photographs" in card["compared_on"]
    signatures = card["formats"]["savedmodel"]["signatures"]
    assert signatures["serving_default"]["inputs"] == {"images": ["float32", ["N", 96, 96, 3]]}
    assert set(signatures["serving_default"]["outputs"]) == {"probabilities", "aux1", "aux2"}
    folder = tmp_path / "out" / "1"
    with pytest.raises(ValueError, match="an export that decodes pictures"):
        evaluate.classify(folder, [__file__])
    assert not any(
        word in (folder / "saved_model.pb").read_bytes() for word in (b"DecodeImage", b"HashTable", b"Dataset")
    )


def test_sizes_that_a_network_leaves_open_are_fixed(tmp_path):
    model = build_googlenet("plain", input_shape=(None, None, 1), classes=4, aux=False, width_multiplier=0.1)
    network = Inference(model, list("abcd"))
    assert network.shape == (224, 224, 1)
    assert network.model.input_shape == (None, 224, 224, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *network.shape), "uint8")
    expected = model.classifier()(pixels / 127.5 - 1)
    np.testing.assert_allclose(network.expected(pixels)["probabilities"], expected, atol=1e-6)


def test_logits_come_out_as_probabilities():
    model = build_googlenet(
        "plain", input_shape=(32, 32, 1), classes=4, aux=False, width_multiplier=0.1, classifier_activation=None
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), "uint8")
    found = Inference(model, list("abcd")).expected(pixels)["probabilities"]
    np.testing.assert_allclose(found, keras.ops.softmax(model.classifier()(pixels / 127.5 - 1)), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_models_config_and_batching_are_for_tf_serving(exported):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    _, folder, _ = exported
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((folder.parent / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")
    assert "max_batch_size { value: 8 }" in (folder / saved_model.BATCHING).read_text()

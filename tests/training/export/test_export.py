import hashlib
import json
import resource

import filelock
import pytest
from tensorflow.core.protobuf import saved_model_pb2

import googlenet
import training
from inception_v1 import build_googlenet
from tests.helpers.runs import save_run
from training.evaluation.classify import classify
from training.export import export as exports
from training.export.export import export

FULL_ONLY = (b"DecodeImage", b"HashTable", b"Dataset")  # operations that a float-only SavedModel does without


def versions(out):
    return sorted(path.name for path in out.iterdir() if path.name.isdecimal())


def words_in(folder):
    """Which of `FULL_ONLY` a SavedModel has."""
    content = (folder / "saved_model.pb").read_bytes()
    return [word for word in FULL_ONLY if word in content]


def test_every_file_is_listed_with_its_checksum(exported):
    _, folder, card = exported
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == set(card["files"]) | {"model_card.json", "README.md"}
    for name, known in card["files"].items():
        content = (folder / name).read_bytes()
        assert known == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_weights_are_stored_once(exported):
    _, version, card = exported
    weights = 4 * card["network"]["parameters"]
    for file in ("model.onnx", "model_float32.tflite"):
        assert weights <= card["files"][file]["bytes"] < 2 * weights, file
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    nodes = [node for function in saved.meta_graphs[0].graph_def.library.function for node in function.node_def]
    stored = sum(len(node.attr["value"].tensor.tensor_content) for node in nodes)
    assert weights - 10_000 <= stored < weights + 100_000  # small tensors are stored in another way
    assert card["files"]["model_float16.tflite"]["bytes"] < 0.65 * card["files"]["model_float32.tflite"]["bytes"]


def test_versions_are_counted_and_an_interrupted_one_is_removed(exported, tmp_path, capsys, monkeypatch):
    run, _, _ = exported
    out = tmp_path / "digits"
    (out / "7").mkdir(parents=True)
    (out / ".8.part" / "assets").mkdir(parents=True)  # of a process that was killed
    monkeypatch.chdir(out)
    card = training.export(run, ".", to="onnx")
    assert (card["name"], card["version"]) == ("digits", 8)
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
    seen, verify = [], exports.verify

    def watch(folder, *rest):
        seen.append(versions(tmp_path / "digits"))
        assert (folder / "model.onnx").is_file()
        return verify(folder, *rest)

    monkeypatch.setattr(exports, "verify", watch)
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
        ({"to": "savedmodel", "precisions": ("int8",)}, "'litert' or 'onnx' among the targets with precisions"),
        ({"to": "onnx", "precisions": ("dynamic",)}, "precision to be one of 'float32', 'float16', 'int8'"),
        ({"to": "onnx,litert", "precisions": ()}, "at least one precision"),
        ({"to": "litert", "precisions": ("int4",)}, "precision to be one of"),
        ({"version": 0}, "version to be 1 or more; Received: version=0"),
        ({"top": 0}, "top to be 1 or more; Received: top=0"),
        ({"class_names": ["a", "b"]}, "Expected 10 class names, one a class; Received: 2"),
        ({"class_names": ["a\nb", *"cdefghijk"]}, r"class names of one line of text each; Received: 'a\\nb'"),
        ({"class_names": [" ", *"bcdefghij"]}, "class names of one line of text each; Received: ' '"),
        ({"class_names": ["\ud800", *"bcdefghij"]}, r"class names of one line of text each; Received: '\\ud800'"),
        ({"class_names": []}, r"class_names to be a list of strings; Received: class_names='\[\]'"),
        ({"class_names": "abcdefghij"}, "class_names to be a list of strings; Received: class_names='abcdefghij'"),
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
    with pytest.raises(ValueError, match=r"a run with a trained model.*no best\.keras: no epoch"):
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
    names.write_bytes(b"\xff\xfe")
    assert googlenet.main(["export", str(exported[0]), "--out", str(out), "--classes", str(names)]) == 2
    assert "Expected class names, one a line, in " in capsys.readouterr().err


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
    with pytest.raises(ValueError, match="an export that decodes images"):
        classify(folder, [__file__])
    assert words_in(folder) == []


def test_the_search_for_operations_finds_them_in_a_full_export(exported):
    """It is the search of the test above, which would pass if it never found anything."""
    assert words_in(exported[1]) == list(FULL_ONLY)

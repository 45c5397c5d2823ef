import ast
import re
import shutil

import numpy as np
import pytest

import googlenet
from training.export import export_model
from training.export.export_model import ExportModel
from training.export.samples import comparison_samples
from training.export.verification import FRESH_PROCESS, compare_probabilities, verify
from training.run_folder import RunFolder


@pytest.mark.parametrize("target", ["savedmodel", "onnx", "litert"])
def test_a_mismatch_names_the_layer_and_deletes_the_export(exported, tmp_path, target, monkeypatch, capsys):
    fold_batchnorm = export_model.fold_batchnorm

    def fold_wrongly(model, aux):
        net = fold_batchnorm(model, aux)
        layer = net.get_layer("inception_4d_3x3")
        layer.set_weights([weight * 1.05 for weight in layer.get_weights()])
        return net

    monkeypatch.setattr(export_model, "fold_batchnorm", fold_wrongly)
    few = {"savedmodel": ["--float-only"], "onnx": [], "litert": ["--precisions", "float32"]}[target]
    assert googlenet.main(["export", str(exported[0]), "--to", target, "--out", str(tmp_path / "out"), *few]) == 2
    error = capsys.readouterr().err
    assert "to agree with the Keras model" in error
    assert "first different at layer inception_4d_3x3;" in error
    assert not list(tmp_path.iterdir())


def test_a_broken_file_is_noticed(exported):
    """The comparison reads the file itself, not what was written to it."""
    import onnx
    from onnx import numpy_helper

    run, folder, card = exported
    network = ExportModel(RunFolder(run).model(), RunFolder(run).classes())
    samples = comparison_samples(RunFolder(run), network, 8)
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    model = onnx.load(copy / "model.onnx")
    (convolution,) = (node for node in model.graph.node if re.fullmatch(".*3b_5x5_reduce.*/convolution", node.name))
    (kernel,) = (weight for weight in model.graph.initializer if weight.name == convolution.input[1])
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * 1.1, kernel.name))
    onnx.save(model, copy / "model.onnx")
    with pytest.raises(ValueError, match=r"Expected onnx to agree.*at layer inception_3b_5x5_reduce;"):
        verify(copy, card | {"formats": {"onnx": card["formats"]["onnx"]}}, network, samples)
    (copy / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"to run in a fresh process; Received: .*it is deleted"):
        verify(copy, card | {"formats": {"onnx": card["formats"]["onnx"]}}, network, samples)
    shutil.rmtree(copy)


def test_a_missing_output_is_noticed(exported):
    run, folder, card = exported
    network = ExportModel(RunFolder(run).model(), RunFolder(run).classes(), keep_aux=True)
    samples = comparison_samples(RunFolder(run), network, 8)
    with pytest.raises(ValueError, match=r"Expected onnx to have .*'aux1'.*none of \['aux1', 'aux2'\]"):
        verify(folder, card | {"formats": {"onnx": card["formats"]["onnx"]}}, network, samples)


def test_the_fresh_process_knows_nothing_of_this_package():
    tree = ast.parse((FRESH_PROCESS / "__main__.py").read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names = {name.split(".")[0] for name in imported}
    assert "numpy" in names
    assert not names & {"keras", "inception_v1", "training", "tuning", "googlenet"}


def test_no_module_beside_the_fresh_process_hides_one_that_it_imports():
    """Python searches the folder that it runs first. No `-P` is needed against that, since it holds nothing else."""
    assert {path.name for path in FRESH_PROCESS.iterdir()} - {"__pycache__"} == {"__init__.py", "__main__.py"}


def test_the_largest_difference_of_probabilities_is_found():
    expected = {"probabilities": np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5]])}
    found = {"probabilities": np.array([[0.7, 0.2, 0.1], [0.1, 0.44, 0.46]])}
    near = compare_probabilities(found, expected)
    assert near["probabilities"] == pytest.approx(0.16)
    assert near["logits"] == pytest.approx(np.log(0.46 / 0.3) / -np.log(0.1))
    assert near["same_class"] == 0.5
    tied = {"probabilities": np.array([[0.4, 0.4 - 1e-6, 0.2]])}
    assert compare_probabilities({"probabilities": tied["probabilities"][:, [1, 0, 2]]}, tied)["same_class"] == 1
    assert compare_probabilities({"probabilities": np.full((1, 3), np.nan)}, expected)["probabilities"] == np.inf

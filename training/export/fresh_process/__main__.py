"""Runs the files of an export in a process that imports nothing of this package, as a user of them would:

python training/export/fresh_process FOLDER SAMPLES RESULTS outputs|tensors FORM...

What the files are, and how pixels become their input, is read from the export's own model card. A FORM is "onnx",
"web", or a name such as "savedmodel/serving_default" or "litert/int8". SAMPLES is an .npz file of `pixels` uint8
`(images, size, size, channels)`, `encoded` (all image files concatenated), their `ends`, and `few`: how many of the
images the SavedModel, the float32 ONNX file and the page see. RESULTS, an .npz file too, gets "FORM:OUTPUT" for every
form, or the value of every tensor of a single form for the first two images.
"""

import contextlib
import ctypes
import functools
import gc
import itertools
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 16

Card = dict[str, Any]  # the export's, as `model_card.json` holds it
Arrays = dict[str, np.ndarray]  # by name


def batches(count: int) -> list[slice]:
    """Slices over so many images, of 1, 5 and then 16."""
    ends = [0, *(end for end in (1, 6) if end < count), *range(6 + BATCH, count, BATCH), count]
    return [slice(start, end) for start, end in itertools.pairwise(ends) if start < end]


def network_input(card: Card, pixels: np.ndarray, scale: str) -> np.ndarray:
    """Pixels as a form takes them: "0-255" or normalized, according to the model card."""
    pixels = pixels.astype("float32")
    if scale == "0-255":
        return pixels
    return (pixels - np.array(card["pixels"]["mean"], "float32")) / np.array(card["pixels"]["std"], "float32")


@functools.cache
def loaded(folder: Path) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(str(folder))


def release_memory() -> None:
    """Returns the memory of the forms that have run to the operating system, as `memory.released` does in the exporting
    process, of which this one imports nothing."""
    loaded.cache_clear()
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other C libraries than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def saved_model(folder: Path, card: Card, signature: str, samples: Arrays) -> Iterator[Arrays]:
    import tensorflow as tf

    function = loaded(folder).signatures[signature]
    ((key, (dtype, _)),) = card["formats"]["savedmodel"]["signatures"][signature]["inputs"].items()
    starts = np.concatenate([[0], samples["ends"]])
    data = samples["encoded"].tobytes()
    for part in batches(int(samples["few"])):
        if dtype == "string":
            values: Any = [data[starts[i] : starts[i + 1]] for i in range(part.start, part.stop)]
        else:
            values = samples["pixels"][part].astype(dtype)
        given = function(**{key: tf.constant(values)})
        yield {name: value.numpy() for name, value in given.items() if value.dtype != tf.string}


def onnx_entry(card: Card, form: str) -> Card:
    """What the model card knows of "onnx", "web", or another precision such as "onnx/int8"."""
    kind, _, precision = form.partition("/")
    entry: Card = card["formats"][kind]
    return entry["precisions"][precision] if precision else entry


def onnx(folder: Path, card: Card, form: str, samples: Arrays) -> Iterator[Arrays]:
    import onnxruntime

    entry = onnx_entry(card, form)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # where others use the cores, too
    session = onnxruntime.InferenceSession(folder / entry["file"], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for part in batches(len(samples["pixels"]) if "/" in form else int(samples["few"])):
        yield dict(zip(names, session.run(names, {"image": onnx_input(card, entry, samples["pixels"][part])})))


def onnx_input(card: Card, entry: Card, pixels: np.ndarray) -> np.ndarray:
    image = network_input(card, pixels, entry["pixels"])
    return image.transpose(0, 3, 1, 2) if entry["layout"] == "NCHW" else image


def web(folder: Path, card: Card, samples: Arrays) -> Iterator[Arrays]:
    """What the page's scripts compute in Node; "of_maps" are the probabilities that its class activation maps add up
    to."""
    if not card["formats"]["web"]["verified_in"]:
        yield from onnx(folder, card, "web", samples)
        return
    pixels = samples["pixels"][: int(samples["few"])]
    with tempfile.TemporaryDirectory() as scratch:
        inputs, results = Path(scratch, "pixels"), Path(scratch, "results")
        inputs.write_bytes(pixels.tobytes())
        script = Path(__file__).resolve().parents[1] / "web" / "run_in_node.mjs"
        done = subprocess.run(
            ["node", script, folder / "web", inputs, results], stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            lines = [line[:300] for line in done.stderr.splitlines() if "Error" in line]
            raise RuntimeError(f"Node.js, {(lines or [f'exit status {done.returncode}'])[-1]}")
        heads = json.loads((folder / "web" / "model.json").read_text("utf-8"))["heads"]
        names = [head["output"] for head in heads] + ["of_maps"]
        values = np.frombuffer(results.read_bytes(), "<f4").reshape(len(names), len(pixels), -1)
    yield dict(zip(names, values))


def litert(folder: Path, card: Card, precision: str, samples: Arrays) -> Iterator[Arrays]:
    from ai_edge_litert.interpreter import Interpreter

    entry = card["formats"]["litert"][precision]
    interpreter = Interpreter(str(folder / entry["file"]))
    for part in batches(len(samples["pixels"])):
        yield litert_run(interpreter, network_input(card, samples["pixels"][part], entry["pixels"]))


def litert_run(interpreter: Any, image: np.ndarray) -> Arrays:
    runner = interpreter.get_signature_runner()
    (key,) = runner.get_input_details()
    return {name: np.array(value) for name, value in runner(**{key: image}).items()}


def outputs(folder: Path, card: Card, form: str, samples: Arrays) -> Arrays:
    """{output: array} of one form for all images."""
    kind, _, name = form.partition("/")
    if kind == "web":
        rows = list(web(folder, card, samples))
    elif kind == "onnx":
        rows = list(onnx(folder, card, form, samples))
    else:
        rows = list({"savedmodel": saved_model, "litert": litert}[kind](folder, card, name, samples))
    return {output: np.concatenate([row[output] for row in rows]) for output in rows[0]}


def tensors(folder: Path, card: Card, form: str, samples: Arrays) -> Arrays:
    """{name: array} of every tensor that a form computes for the first two images, feature maps `(2, height, width,
    c)`."""
    kind, _, name = form.partition("/")
    pixels = samples["pixels"][:2]
    if kind == "savedmodel":
        return saved_model_tensors(folder, network_input(card, pixels, "normalized"))
    if kind in ("onnx", "web"):
        return onnx_tensors(folder, card, form, pixels)
    return litert_tensors(folder, card, name, pixels)


def saved_model_tensors(folder: Path, images: np.ndarray) -> Arrays:
    import tensorflow as tf

    graph = loaded(folder).network.graph
    definition = graph.as_graph_def()
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    computed = [
        tensor
        for operation in wrapped.graph.get_operations()
        for tensor in operation.outputs
        if tensor.dtype == tf.float32 and operation.type not in ("Const", "Placeholder")
    ]
    given = wrapped.graph.as_graph_element(f"{graph.inputs[0].op.name}:0")
    values = wrapped.prune(given, computed)(tf.constant(images))
    return {tensor.op.name: value.numpy() for tensor, value in zip(computed, values)}


def onnx_tensors(folder: Path, card: Card, form: str, pixels: np.ndarray) -> Arrays:
    import onnx
    import onnxruntime

    entry = onnx_entry(card, form)
    model = onnx.load(folder / entry["file"])
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.ClearField("output")
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = dict(zip(names, session.run(names, {"image": onnx_input(card, entry, pixels)})))
    return {name: value.transpose(0, 2, 3, 1) if value.ndim == 4 else value for name, value in values.items()}


def litert_tensors(folder: Path, card: Card, precision: str, pixels: np.ndarray) -> Arrays:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    entry = card["formats"]["litert"][precision]
    interpreter = Interpreter(
        str(folder / entry["file"]),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    litert_run(interpreter, network_input(card, pixels, entry["pixels"]))
    found = {}
    for detail in interpreter.get_tensor_details():
        try:
            value = interpreter.get_tensor(detail["index"])
        except ValueError:  # a temporary of an operation
            continue
        scale, zero = detail["quantization"]
        found[f"{detail['name']}:{detail['index']}"] = (value.astype("float32") - zero) * scale if scale else value
    return found


def main(folder: str, samples_path: str, results_path: str, kind: str, *forms: str) -> None:
    card = json.loads((Path(folder) / "model_card.json").read_text("utf-8"))
    with np.load(samples_path) as file:
        samples = dict(file)
    if kind == "tensors":
        (form,) = forms
        values: dict[str, Any] = tensors(Path(folder), card, form, samples)
        np.savez(results_path, **values)
        return
    found: dict[str, Any] = {}
    for _, of_kind in itertools.groupby(forms, lambda form: form.partition("/")[0]):
        for form in of_kind:
            found |= {f"{form}:{name}": value for name, value in outputs(Path(folder), card, form, samples).items()}
        release_memory()
    np.savez(results_path, **found)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])

"""Runs the files of an export as a stranger would, in a process that imports nothing of this package:

python -P training/export/fresh_process.py FOLDER SAMPLES ANSWERS [FORM]

What the files are, and how pixels become their input, is read from the export's own card. SAMPLES is an .npz file of
`pixels` uint8 `(images, size, size, channels)`, `encoded` (all pictures one after the other), their `ends`, and `few`:
how many of the images the SavedModel and the ONNX file see. ANSWERS, an .npz file too, gets "FORM:OUTPUT" for every
form of the network; with FORM it gets the value of every tensor in that form for the first two images instead.
"""

import functools
import itertools
import json
import sys
import warnings
from pathlib import Path

import numpy as np

BATCH = 32


def batches(count):
    """Slices over so many images, of 1, 5 and then 32."""
    ends = [0, *(end for end in (1, 6) if end < count), *range(6 + BATCH, count, BATCH), count]
    return [slice(start, end) for start, end in itertools.pairwise(ends) if start < end]


def forms(card):
    """Names of the forms that an export holds."""
    for kind, entry in card["formats"].items():
        inner = {"savedmodel": entry.get("signatures"), "litert": entry}.get(kind)
        yield from [kind] if inner is None else [f"{kind}/{name}" for name in inner]


def network_input(card, pixels, taken):
    """Pixels as a form takes them: "0-255" or normalised, after the card."""
    pixels = pixels.astype("float32")
    if taken == "0-255":
        return pixels
    return (pixels - np.array(card["pixels"]["mean"], "float32")) / np.array(card["pixels"]["std"], "float32")


@functools.cache
def loaded(folder):
    import tensorflow as tf

    return tf.saved_model.load(str(folder))


def saved_model(folder, card, signature, samples):
    import tensorflow as tf

    function = loaded(folder).signatures[signature]
    ((key, (dtype, _)),) = card["formats"]["savedmodel"]["signatures"][signature]["inputs"].items()
    starts = np.concatenate([[0], samples["ends"]])
    data = samples["encoded"].tobytes()
    for part in batches(int(samples["few"])):
        if dtype == "string":
            values = [data[starts[i] : starts[i + 1]] for i in range(part.start, part.stop)]
        else:
            values = samples["pixels"][part].astype(dtype)
        given = function(**{key: tf.constant(values)})
        yield {name: value.numpy() for name, value in given.items() if value.dtype != tf.string}


def onnx(folder, card, samples):
    import onnxruntime

    entry = card["formats"]["onnx"]
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # where others use the cores, too
    session = onnxruntime.InferenceSession(folder / entry["file"], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for part in batches(int(samples["few"])):
        yield dict(zip(names, session.run(names, {"image": onnx_input(card, samples["pixels"][part])})))


def onnx_input(card, pixels):
    entry = card["formats"]["onnx"]
    image = network_input(card, pixels, entry["pixels"])
    return image.transpose(0, 3, 1, 2) if entry["layout"] == "NCHW" else image


def litert(folder, card, precision, samples):
    from ai_edge_litert.interpreter import Interpreter

    entry = card["formats"]["litert"][precision]
    interpreter = Interpreter(str(folder / entry["file"]))
    for part in batches(len(samples["pixels"])):
        yield litert_run(interpreter, network_input(card, samples["pixels"][part], entry["pixels"]))


def litert_run(interpreter, image):
    runner = interpreter.get_signature_runner()
    (key,) = runner.get_input_details()
    return {name: np.array(value) for name, value in runner(**{key: image}).items()}


def answers(folder, card, form, samples):
    """{output: array} of one form for all images."""
    kind, _, name = form.partition("/")
    rows = (
        {"savedmodel": saved_model, "litert": litert}[kind](folder, card, name, samples)
        if name
        else onnx(folder, card, samples)
    )
    rows = list(rows)
    return {output: np.concatenate([row[output] for row in rows]) for output in rows[0]}


def tensors(folder, card, form, samples):
    """{name: array} of every tensor that a form computes for the first two images, maps `(2, height, width, c)`."""
    kind, _, name = form.partition("/")
    pixels = samples["pixels"][:2]
    if kind == "savedmodel":
        return saved_model_tensors(folder, network_input(card, pixels, "normalised"))
    return onnx_tensors(folder, card, pixels) if kind == "onnx" else litert_tensors(folder, card, name, pixels)


def saved_model_tensors(folder, images):
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


def onnx_tensors(folder, card, pixels):
    import onnx
    import onnxruntime

    model = onnx.load(folder / card["formats"]["onnx"]["file"])
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.ClearField("output")
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = dict(zip(names, session.run(names, {"image": onnx_input(card, pixels)})))
    return {name: value.transpose(0, 2, 3, 1) if value.ndim == 4 else value for name, value in values.items()}


def litert_tensors(folder, card, precision, pixels):
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


def main(folder, samples_path, answers_path, form=None):
    card = json.loads((Path(folder) / "model_card.json").read_text("utf-8"))
    with np.load(samples_path) as file:
        samples = dict(file)
    if form is not None:
        np.savez(answers_path, **tensors(Path(folder), card, form, samples))
        return
    found = {
        f"{form}:{output}": value
        for form in forms(card)
        for output, value in answers(Path(folder), card, form, samples).items()
    }
    np.savez(answers_path, **found)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])

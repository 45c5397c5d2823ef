"""The ONNX zoo's graphs: the one in the `onnx` wheel with other constants, run by onnxruntime."""

from pathlib import Path

import numpy as np

from tests.oracles import random_array

FAMILY, EXECUTOR, VARIANT, SCALE = "ONNX", "onnxruntime", "onnx_zoo", 60.0
SPREAD = 1 / 3.9


def write(folder, ceil: bool = False):
    """The zoo's `inception-v1` graph, whose pools round down; with `ceil` as its `googlenet` graphs, which round up.

    It takes any size of image: its last pool is made global.
    """
    import onnx
    from onnx import helper, numpy_helper

    file = Path(onnx.__file__).parent / "backend/test/data/light/light_inception_v1.onnx"
    model = onnx.load(file)
    graph = model.graph
    kept = {t.name: t for t in graph.initializer if "__SHAPE" not in t.name}
    shapes = {name: tuple(t.dims) for name, t in kept.items() if t.data_type == onnx.TensorProto.FLOAT}
    by_name = {t.name: t for t in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":  # what stands for most weights in this file
            shapes[node.output[0]] = tuple(numpy_helper.to_array(by_name[node.input[0]]).tolist())
            continue
        if node.op_type == "AveragePool":
            node = helper.make_node("GlobalAveragePool", node.input, node.output)
        elif node.op_type == "MaxPool" and ceil:
            for attribute in node.attribute:
                if attribute.name == "pads" and not any(attribute.ints):
                    attribute.ints[:] = (0, 0, 2, 2)
        nodes.append(node)
    weights = {name: random_array(name, shape) for name, shape in shapes.items()}
    weights["loss3/classifier_w_0"] *= SPREAD
    others = [t for name, t in kept.items() if name not in shapes]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    image = helper.make_tensor_value_info("data_0", onnx.TensorProto.FLOAT, (None, 3, None, None))
    outputs = [n.output[0] for n in nodes if n.op_type in ("Concat", "Gemm")]
    made = helper.make_model(
        helper.make_graph(
            nodes, graph.name, [image], [helper.make_empty_tensor_value_info(o) for o in outputs], others + tensors
        ),
        opset_imports=model.opset_import,
        ir_version=9,
    )
    path = folder / ("ceil.onnx" if ceil else "floor.onnx")
    path.write_bytes(made.SerializeToString())
    return path


def run_blocks(path, images: np.ndarray) -> list[np.ndarray]:
    """The maps of blocks 3a to 5b, channels last, and the logits."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    single = [
        session.run(None, {"data_0": np.ascontiguousarray(x[..., ::-1].transpose(2, 0, 1)[None])}) for x in images
    ]
    *maps, logits = (np.concatenate(parts) for parts in zip(*single, strict=True))  # blue first, one image at a time
    return [m.transpose(0, 2, 3, 1) for m in maps] + [logits]


def run(path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Logits by head."""
    return {"main": run_blocks(path, images)[-1]}

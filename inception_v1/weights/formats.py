"""What a weights file is, and what it holds: recognized by its content, whatever its name."""

import contextlib
import gzip
import io
import json
import math
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from inception_v1.cost import cost
from inception_v1.errors import UserError
from inception_v1.model import GoogLeNet
from inception_v1.spec import LRN, Spec
from inception_v1.weights.caffe_file import read_caffe
from inception_v1.weights.torch_file import read_torch

FILE_BYTES = 2**30  # twenty times the largest published file
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # ends a TensorFlow checkpoint of one file, and the index of others

SOURCES = ("caffe", "torchvision", "slim", "onnx", "inception5h", "keras")


class Weights(NamedTuple):
    """What a file holds.

    Attributes:
        path: where it came from.
        source: kind of file, one of `SOURCES`.
        variant: family of the network; None where the file does not name it (`.weights.h5`, with no arrays yet).
        arrays: by the file's names; by our variables' paths in our own files.
        lrn: constants of its response normalization where the file has them.
        spec: the network where the file has it.
    """

    path: Path
    source: str
    variant: str | None
    arrays: dict[str, np.ndarray]
    lrn: LRN | None = None
    spec: Spec | None = None


def read(path: str | os.PathLike[str], source: str | None = None) -> Weights:
    """Reads a file of weights.

    Args:
        path: the file; of a TensorFlow checkpoint of several files the common beginning of their names.
        source: what it has to be, one of `SOURCES`; None for any.

    Raises:
        UserError: no such file, damaged, hostile, larger than 1 GiB, or none of the formats.
    """
    path = Path(path)
    expected = f"Expected {f'weights of {source}' if source else 'a file of GoogLeNet weights'}"
    if source is not None and source not in SOURCES:
        raise UserError(f"Expected source to be one of {', '.join(SOURCES)}, or None; Received: source={source!r}.")
    if not path.is_file() and not _index(path).is_file():
        raise UserError(f"{expected}; Received: {str(path)!r}, which does not exist.")
    with refused(expected, path):
        weights = _read_checkpoint(path) if _index(path).is_file() else _read_file(path)
        if source not in (None, weights.source):
            raise ValueError(f"it is a file of {weights.source}")
        return weights


@contextlib.contextmanager
def refused(expected: str, path: Path) -> Iterator[None]:
    """Turns whatever a damaged or hostile file made one of the parsers raise into a `UserError`."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{expected}; Received: {str(path)!r}: {reason:.500}") from error


def _index(path: Path) -> Path:
    return Path(f"{str(path).removesuffix('.index')}.index")


def _read_file(path: Path) -> Weights:
    size = path.stat().st_size
    if size > FILE_BYTES:
        raise ValueError(f"it has {size} bytes, more than {FILE_BYTES}")
    data = path.read_bytes()
    if data[:4] == b"PK\x03\x04":
        return _read_zip(path, data)
    if data[:2] == b"\x1f\x8b":
        return _read_tar(path)
    if data[:2] == b"\x80\x02":  # the pickles that torch.save once wrote
        return Weights(path, "torchvision", "torchvision", read_torch(data))
    if data[-8:] == TABLE_MAGIC:
        return _read_checkpoint(path)
    if int.from_bytes(data[:8], "little") <= len(data) - 8 and data[8:9] == b"{":
        from safetensors.numpy import load

        return Weights(path, "torchvision", "torchvision", load(data))
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return Weights(path, "keras", None, {})
    return _read_protobuf(path, data)


def _read_zip(path: Path, data: bytes) -> Weights:
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return Weights(path, "torchvision", "torchvision", read_torch(data))
    if {"config.json", "model.weights.h5"} <= set(names):
        return _read_keras(path, archive)
    graphs = [name for name in names if name.endswith(".pb")]  # inception5h.zip, as published
    if len(graphs) == 1:
        return _read_graph(path, _unpacked(archive, graphs[0]))
    raise ValueError("it is a zip archive without weights of a known kind")


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    """One member, unless it pretends to be larger than any weights."""
    size = archive.getinfo(name).file_size
    if size > FILE_BYTES:
        raise ValueError(f"{name!r} would unpack to {size} bytes, more than {FILE_BYTES}")
    with archive.open(name) as member:
        data = member.read(size + 1)
    if len(data) != size:
        raise ValueError(f"{name!r} does not unpack to its {size} bytes")
    return data


def _read_keras(path: Path, archive: zipfile.ZipFile) -> Weights:
    """A `.keras` archive of a `GoogLeNet`, without executing anything that its configuration names."""
    config: Any = json.loads(_unpacked(archive, "config.json"))
    if config.get("registered_name") != "inception_v1>GoogLeNet":
        raise ValueError(f"it holds a {config.get('class_name')}, not a GoogLeNet")
    spec = Spec(**config["config"])
    variables = _unpacked(archive, "model.weights.h5")
    return Weights(path, "keras", spec.variant, read_hdf5(spec, variables), spec.lrn, spec)


def read_hdf5(spec: Spec, data: bytes) -> dict[str, np.ndarray]:
    """The variables in the content of a `.weights.h5` file, by path, of a network that the file does not describe."""
    if cost(spec).params * 4 > len(data):
        raise ValueError(f"its {len(data)} bytes of weights are too few for its network")
    model = GoogLeNet(**spec.to_dict())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.weights.h5")  # Keras goes by the name
        file.write_bytes(data)
        model.load_weights(file)
    return {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.weights}


def _read_tar(path: Path) -> Weights:
    """A TF-slim checkpoint as published: one `.tar.gz`."""
    with gzip.open(path) as stream:  # to its end, where its checksum is
        _check_total(len(chunk) for chunk in iter(lambda: stream.read(2**20), b""))
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path, "r:gz") as archive:
        _check_total(member.size for member in archive)  # a sparse file is larger than what it takes in the archive
        for member in archive:
            if member.isfile():
                archive.extract(member, folder, filter="data")  # refuses paths that lead elsewhere
            elif not member.isdir():
                raise ValueError(f"{member.name!r} is neither a file nor a folder")
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        indices = [file for file in files if file.suffix == ".index"]
        checkpoints = indices or [file for file in files if file.read_bytes()[-8:] == TABLE_MAGIC]
        if len(checkpoints) != 1:
            raise ValueError(f"it holds {len(checkpoints)} TensorFlow checkpoints instead of one")
        return _read_checkpoint(checkpoints[0])._replace(path=path)


def _check_total(sizes: Iterable[int]) -> None:
    """Raises as soon as `sizes` add up to more than any weights."""
    total = 0
    for size in sizes:
        total += size
        if total > FILE_BYTES:
            raise ValueError(f"it would unpack to more than {FILE_BYTES} bytes")


def _read_checkpoint(path: Path) -> Weights:
    """A TensorFlow checkpoint in one file (V1) or several (V2)."""
    import tensorflow as tf

    prefix = str(path).removesuffix(".index")
    files = [file for file in path.parent.iterdir() if f"{file}".startswith(f"{prefix}.data-")]
    files += [path] if path.is_file() else []
    reader = tf.train.load_checkpoint(prefix if _index(path).is_file() else str(path))
    dtypes = reader.get_variable_to_dtype_map()
    wanted = {n: s for n, s in reader.get_variable_to_shape_map().items() if dtypes[n] == tf.float32}
    claimed, held = sum(4 * math.prod(shape) for shape in wanted.values()), sum(file.stat().st_size for file in files)
    if claimed > held:
        raise ValueError(f"its variables would take {claimed} bytes of the {held} that it has")
    return Weights(path, "slim", "slim", {name: reader.get_tensor(name) for name in wanted})


def _read_protobuf(path: Path, data: bytes) -> Weights:
    """Tries one message after the other, since protobuf does not name its own."""
    from google.protobuf.message import DecodeError

    for reader in (_read_onnx, _read_graph, _read_caffe):
        with contextlib.suppress(DecodeError):
            weights = reader(path, data)
            if weights.arrays:
                return weights
    raise ValueError("it is damaged, or nothing that Caffe, PyTorch, TensorFlow, ONNX, Keras or safetensors wrote")


def _read_caffe(path: Path, data: bytes) -> Weights:
    return Weights(path, "caffe", "paper", read_caffe(data))


def _read_onnx(path: Path, data: bytes) -> Weights:
    import onnx

    graph = onnx.ModelProto.FromString(data).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and values:
            tensors[node.output[0]] = values[0]
    arrays = {}
    for name, tensor in tensors.items():
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError(f"{name!r} is stored in another file, which is not followed")
        if tensor.data_type == onnx.TensorProto.FLOAT:
            held = len(tensor.raw_data) // 4 or len(tensor.float_data)
            if any(n < 0 for n in tensor.dims) or math.prod(tensor.dims) != held:
                raise ValueError(f"{name!r} holds {held} numbers for shape {tuple(tensor.dims)}")
            arrays[name] = onnx.numpy_helper.to_array(tensor)
    variant = "paper" if all(_rounds_up(node) for node in graph.node if node.op_type == "MaxPool") else "onnx_zoo"
    return Weights(path, "onnx", variant, arrays)


def _rounds_up(node: Any) -> bool:
    """Whether a max pool keeps the last row; those of stride 1 do anyway."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    pads = tuple(attributes["pads"].ints) if "pads" in attributes else (0, 0, 0, 0)
    strides = tuple(attributes["strides"].ints) if "strides" in attributes else (1, 1)
    ceil = "ceil_mode" in attributes and attributes["ceil_mode"].i == 1
    return max(strides, default=1) == 1 or ceil or any(pads[len(pads) // 2 :])


def _read_graph(path: Path, data: bytes) -> Weights:
    """inception5h: a frozen TensorFlow graph, with the constants of its response normalization."""
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph = GraphDef.FromString(data)
    constants = {node.name: node.attr["value"].tensor for node in graph.node if node.op == "Const"}
    arrays = {name: _constant(name, tensor) for name, tensor in constants.items() if tensor.dtype == 1}  # DT_FLOAT
    lrns = {_lrn(node) for node in graph.node if node.op == "LRN"}
    if len(lrns) > 1:
        raise ValueError(f"its response normalizations differ: {sorted(lrns)}")
    arrays = {name: array for name, array in arrays.items() if array.ndim}
    return Weights(path, "inception5h", "inception5h", arrays, next(iter(lrns), None))


def _constant(name: str, tensor: Any) -> np.ndarray:
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    flat = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val, "f4")
    if any(n < 0 for n in shape) or (
        flat.size != math.prod(shape) and not (flat.size == 1 and math.prod(shape) < 2**20)
    ):
        raise ValueError(f"{name!r} holds {flat.size} numbers for shape {shape}")
    return (
        flat.reshape(shape) if flat.size == math.prod(shape) else np.full(shape, flat[0])
    )  # one number stands for all


def _lrn(node: Any) -> LRN:
    """TensorFlow takes a radius and does not divide alpha; what a node leaves out has the operation's default."""
    attributes = {"depth_radius": 5, "bias": 1.0, "alpha": 1.0, "beta": 0.5}
    for name in attributes.keys() & node.attr.keys():
        attributes[name] = node.attr[name].i if name == "depth_radius" else node.attr[name].f
    size = 2 * int(attributes["depth_radius"]) + 1
    return LRN(size, attributes["alpha"] * size, attributes["beta"], attributes["bias"])

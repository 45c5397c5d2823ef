"""Blobs in and out of a `.caffemodel`, through the few fields of Caffe's messages that hold them.

Source: `caffe.proto`. Unnamed fields are skipped on reading, as protobuf does.
"""

import functools
import math
from typing import Any

import numpy as np

# message: {field: (number, type, repeated)}
MESSAGES = {
    "BlobShape": {"dim": (1, "int64", True)},
    "BlobProto": {
        "num": (1, "int32", False),
        "channels": (2, "int32", False),
        "height": (3, "int32", False),
        "width": (4, "int32", False),
        "data": (5, "float", True),
        "shape": (7, "BlobShape", False),
        "double_data": (8, "double", True),
    },
    "LayerParameter": {"name": (1, "string", False), "type": (2, "string", False), "blobs": (7, "BlobProto", True)},
    "V1LayerParameter": {"name": (4, "string", False), "type": (5, "int32", False), "blobs": (6, "BlobProto", True)},
    "NetParameter": {
        "name": (1, "string", False),
        "layers": (2, "V1LayerParameter", True),  # up to 2014, and in the published file
        "layer": (100, "LayerParameter", True),
    },
}


@functools.cache
def message(name: str) -> Any:
    """The protobuf class of one of Caffe's messages."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="inception_v1_caffe.proto", package="inception_v1.caffe")
    for own, fields in MESSAGES.items():
        described = file.message_type.add(name=own)
        for field, (number, kind, repeated) in fields.items():
            added = described.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind in MESSAGES:
                added.type, added.type_name = field_type.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                added.type = getattr(field_type, f"TYPE_{kind.upper()}")
            if kind in ("float", "double", "int64"):
                added.options.packed = repeated
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))


def read_caffe(data: bytes) -> dict[str, np.ndarray]:
    """The blobs of a net, named as ONNX names them: "conv1/7x7_s2_w_0" the kernel, "conv1/7x7_s2_b_0" the bias.

    Raises:
        google.protobuf.message.DecodeError: it is no protobuf of a net.
        ValueError: a blob whose shape does not fit its data, or more than two of a layer.
    """
    net = message("NetParameter").FromString(data)
    blobs = {}
    for layer in (*net.layer, *net.layers):
        if len(layer.blobs) > 2:
            raise ValueError(f"layer {layer.name!r} has {len(layer.blobs)} blobs; convolutions and dense layers have 2")
        for blob, suffix in zip(layer.blobs, ("w_0", "b_0"), strict=False):
            blobs[f"{layer.name}_{suffix}"] = _array(blob, layer.name)
    return blobs


def _array(blob: Any, layer: str) -> np.ndarray:
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    numbers = blob.data or blob.double_data
    if any(n < 0 for n in shape) or math.prod(shape) != len(numbers):
        raise ValueError(f"a blob of layer {layer!r} holds {len(numbers)} numbers for shape {shape}")
    return np.fromiter(numbers, "float32", len(numbers)).reshape(shape)


def write_caffe(name: str, layers: dict[str, tuple[str, list[np.ndarray]]]) -> bytes:
    """A net of {layer: (type, blobs)} in the current wire format, which Caffe fills into a net of the same names."""
    net = message("NetParameter")(name=name)
    for layer, (kind, blobs) in layers.items():
        added = net.layer.add(name=layer, type=kind)
        for blob in blobs:
            written = added.blobs.add()
            written.shape.dim.extend(blob.shape)
            written.data.extend(blob.ravel().tolist())
    return net.SerializeToString()

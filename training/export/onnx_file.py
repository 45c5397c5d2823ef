"""A network as an ONNX file, whose metadata describes its input and classes."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import onnx
import tensorflow as tf
import tf2onnx

from training.export import memory
from training.export.export_model import ExportModel

OPSET = 18  # the newest that tf2onnx writes
CATCH_ERRORS = "TF2ONNX_CATCH_ERRORS"  # tf2onnx 1.17 takes any value for false


@memory.released()
def convert(
    network: ExportModel, nchw: bool = False, preprocessing: bool = False, features: bool = False
) -> onnx.ModelProto:
    """The network as a checked ONNX model of `image` to `probabilities` (and "aux1", "aux2" where kept).

    Args:
        network: what to convert.
        nchw: whether `image` is `(N, channels, size, size)`, else `(N, size, size, channels)`.
        preprocessing: whether `image` holds pixels on the 0-255 scale, else normalized ones. Float32 either way.
        features: whether the last feature maps are an output too, of normalized pixels.

    Returns:
        The model; its metadata hold the labels, the order of `image` and the pixel convention.
    """
    spec = tf.TensorSpec((None, *network.shape), tf.float32, "image")
    function = network.of_pixels if preprocessing else network.with_features if features else network
    predict = tf.function(lambda image: function(image), [spec])
    with _without_copies():
        model, _ = tf2onnx.convert.from_function(
            predict, [spec], opset=OPSET, inputs_as_nchw=["image"] if nchw else None
        )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    model.producer_name, model.graph.name = "googlenet-keras", network.model.name
    onnx.helper.set_model_props(model, _metadata(network, nchw, preprocessing))
    onnx.checker.check_model(model, full_check=True)
    return model


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """Keeps tf2onnx from copying the network before each of its dozen optimizers, and from continuing without one that
    fails."""
    before = os.environ.get(CATCH_ERRORS)
    os.environ[CATCH_ERRORS] = "FALSE"
    try:
        yield
    finally:
        del os.environ[CATCH_ERRORS]
        if before is not None:
            os.environ[CATCH_ERRORS] = before


def describe(model: onnx.ModelProto) -> dict[str, dict[str, list[Any]]]:
    """{"inputs" and "outputs": {name: [dtype, shape]}}."""
    return {
        side: {
            value.name: ["float32", [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]]
            for value in values
        }
        for side, values in (("inputs", model.graph.input), ("outputs", model.graph.output))
    }


def _metadata(network: ExportModel, nchw: bool, preprocessing: bool) -> dict[str, str]:
    return {
        "labels": json.dumps(network.labels),
        "layout": "NCHW" if nchw else "NHWC",
        "colors": "RGB" if network.channels == 3 else "gray",
        "pixels": "0-255" if preprocessing else "(pixel - mean) / std of pixels on the 0-255 scale",
        "mean": json.dumps(network.mean.tolist()),
        "std": json.dumps(network.std.tolist()),
    }

"""A network as LiteRT (TensorFlow Lite) files of four precisions."""

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from inception_v1.spec import LRN, Spec
from training.errors import UserError
from training.export import memory
from training.export.export_model import ExportModel

PRECISIONS = ("float32", "float16", "dynamic", "int8")


def int8_refusal(spec: Spec) -> str | None:
    """Why a network cannot be quantized to int8, or None."""
    if isinstance(spec.norm, LRN):
        return f"the response normalization of variant {spec.variant!r} would stay float"
    return None


@memory.released()
def convert(
    network: ExportModel, precision: str, preprocessing: bool = False, representative: Iterable[np.ndarray] = ()
) -> bytes:
    """The network as a LiteRT model of `image` to `probabilities` (and "aux1", "aux2" where kept), float32 both.

    Args:
        network: what to convert.
        precision: "float32"; "float16" (of the weights); "dynamic" (weights in 8 bits, activations quantized as they
            come) or "int8" (every operation).
        preprocessing: whether `image` holds pixels on the 0-255 scale, else normalized ones.
        representative: of int8: images float32 `(size, size, channels)` as `image` holds them, on which the ranges of
            the activations are measured.

    Returns:
        The content of the file.

    Raises:
        UserError: int8 of a network of which an operation stays float.
    """
    if precision == "int8" and (refusal := int8_refusal(network.model.spec)):
        raise UserError(f"Expected a network whose operations all have an int8 form; Received: {refusal}.")
    spec = tf.TensorSpec((None, *network.shape), tf.float32, "image")
    predict = tf.function(lambda image: (network.of_pixels if preprocessing else network)(image), [spec])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([predict.get_concrete_function()], tf.Module())
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: ({"image": image[None]} for image in representative)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with _quiet():
        content = converter.convert()
    if precision == "int8":
        _check_all_int8(content)
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides that the converter uses an interpreter that TensorFlow deprecates, and what its C++ part prints."""
    stderr = os.dup(2)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as devnull:
            warnings.simplefilter("ignore")
            os.dup2(devnull.fileno(), 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _check_all_int8(content: bytes) -> None:
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=plain)
    ends = {detail["index"] for detail in (*interpreter.get_input_details(), *interpreter.get_output_details())}
    floats = [
        detail["name"]
        for detail in interpreter.get_tensor_details()
        if detail["dtype"] in (np.float32, np.float16) and detail["index"] not in ends
    ]
    if floats:
        raise UserError(f"Expected a network whose operations all have an int8 form; Received: float {floats[0]!r}.")

"""An ONNX file in fewer bits: float16 for GPUs, int8 for CPUs and accelerators with integer dot products."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from training.export import memory

PRECISIONS = ("float32", "float16", "int8")
CALIBRATION_BATCH = 16  # images in a run of the float32 network
QUANTIZED = ["Conv", "Gemm", "MatMul", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat"]


@memory.released()
def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network in float16 but for its input and outputs, which stay float32."""
    with _quiet():
        return convert_float_to_float16(model, keep_io_types=True)


@memory.released()
def to_int8(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """The network with 8-bit convolutions, pools and concatenations, as pairs of QuantizeLinear and DequantizeLinear.

    Weights are symmetric int8 with a scale for each filter, in 7 bits: in 8, sums of two products overflow 16 bits on
    x86 CPUs without VNNI, which multiplied the largest error by 2 to 3 on one with AVX2. Activations are uint8 between
    their extremes on `images`. What has no 8-bit form, such as the response normalization and the softmax, stays
    float32.

    Args:
        model: in float32.
        images: float32, as the file's `image` holds them; the ranges are those of these.
    """
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        paths = [str(Path(scratch, f"{name}.onnx")) for name in ("float32", "prepared", "int8")]
        onnx.save(model, paths[0])
        quant_pre_process(paths[0], paths[1], skip_symbolic_shape=True)
        quantize_static(
            paths[1],
            paths[2],
            _Batches(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantized = onnx.load(paths[2])
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)
    quantized.producer_name, quantized.graph.name = model.producer_name, model.graph.name
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


class _Batches(CalibrationDataReader):
    """Feeds images to the calibration."""

    def __init__(self, images: np.ndarray) -> None:
        parts = np.split(images, range(CALIBRATION_BATCH, len(images), CALIBRATION_BATCH))
        self._batches: Iterator[np.ndarray] = iter(parts)

    def get_next(self) -> dict[str, Any] | None:
        images = next(self._batches, None)
        return None if images is None else {"image": images}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the advice of onnxruntime's tools, which log it to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

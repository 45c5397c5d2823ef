"""How long networks take for one image as ONNX files, in onnxruntime on this machine."""

import time
from collections.abc import Mapping

import keras
import numpy as np

from inception_v1 import GoogLeNet

WARMUP, ROUNDS = 3, 30  # calls of each network


def onnx_latencies(models: Mapping[str, GoogLeNet]) -> dict[str, float] | None:
    """Median seconds for a batch of one image, by name; the networks take turns, so that all see the same load.

    None where Keras is not on TensorFlow, which exports, or the extra [export] is not installed.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    try:
        import onnxruntime

        from training.export.export_model import ExportModel
        from training.export.onnx_file import convert
    except ImportError:
        return None
    sessions = {}
    for name, model in models.items():
        network = ExportModel(model, list(map(str, range(model.spec.classes))))
        file = convert(network).SerializeToString()
        sessions[name] = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(1, *network.shape)).astype("float32")
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(WARMUP + ROUNDS):
        for name, session in sessions.items():
            began = time.perf_counter()
            session.run(None, {"image": image})
            seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(times[WARMUP:])) for name, times in seconds.items()}

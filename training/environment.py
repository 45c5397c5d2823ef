"""What a run computes with: versions of the libraries, and the devices of this process."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("googlenet-keras", "tensorflow", "keras", "numpy")


def describe_environment() -> dict[str, Any]:
    """{"versions": {name: version}, "backend": Keras' one, "devices": names}, for `metrics.json`."""
    import keras

    backend = keras.backend.backend()
    versions = {"python": platform.python_version()}
    for name in dict.fromkeys((*PACKAGES, backend)):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            continue
    return {"versions": versions, "backend": backend, "devices": _devices(backend)}


def _devices(backend: str) -> list[str]:
    if backend == "jax":
        import jax

        return [cpu() if device.platform == "cpu" else device.device_kind for device in jax.local_devices()]
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    return [*names, *(device.name for device in tf.config.list_logical_devices("TPU"))] or [cpu()]


def cpu() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())

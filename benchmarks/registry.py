"""The benchmarks of `python -m benchmarks` by name."""

import importlib
from types import ModuleType

MODULES = {  # of this package
    "train": "train",
    "rematerialization": "rematerialization",
    "inference": "inference",
    "input": "input_pipeline",
    "startup": "startup",
    "scaling": "scaling",
    "saving": "saving",
    "predict": "predict",
    "evaluation": "evaluation",
    "export": "exporting",
    "growth": "growth",
    "rendering": "rendering",
    "web": "web",
    "serving": "serving",
    "latency": "latency",
    "large_data": "large_data",
    "gpu": "gpu",
    "quantization": "quantization",
    "distillation": "distillation",
    "slim": "slim",
    "correlated_widths": "correlated_widths",
    "shared_weights": "shared_weights",
}
# Which run by name alone: one needs a GPU, one gigabytes of the disk, the others take hours.
ALONE = ("gpu", "large_data", "quantization", "distillation", "slim", "correlated_widths", "shared_weights")


def load(name: str) -> ModuleType:
    """The module of a benchmark, which is imported on first use, since it may set the environment of TensorFlow."""
    return importlib.import_module(f"benchmarks.{MODULES[name]}")

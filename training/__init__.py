"""Training GoogLeNet: sources, pipeline, recipes, runs, their evaluation and exports."""

from typing import Any

_PUBLIC = {
    "fine_tune": "training.transfer",
    "export": "training.export.export",
}  # imported on demand: `training.recipe` must not wait for Keras


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)

"""Searching the widths of the Inception branches under a budget."""

from typing import Any

_PUBLIC = {  # imported on demand: the spaces must not wait for Keras
    "Budget": "tuning.space",
    "GoogLeNetHyperModel": "tuning.hypermodel",
    "Space": "tuning.space",
    "search": "tuning.search",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)

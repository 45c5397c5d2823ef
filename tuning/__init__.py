"""Searching the widths of the Inception branches under a budget.

The public names are those of `__init__.pyi`, imported on first use.
"""

from typing import Any

import lazy_loader

from inception_v1.extras import extra

_public_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    with extra("tune"):
        return _public_name(name)

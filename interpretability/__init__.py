"""What a network has learnt: images that its neurons, channels and classes respond to most.

The public names are those of `__init__.pyi`, imported on first use.
"""

from typing import Any

import lazy_loader

from inception_v1.extras import extra

_public_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    with extra("interpret"):
        return _public_name(name)

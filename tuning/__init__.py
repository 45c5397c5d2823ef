"""Searching the widths of the Inception branches under a budget.

The public names are those of `__init__.pyi`, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Searching the widths of the Inception branches under a budget, and slimming those of a trained network.

The public names are those of `__init__.pyi`, imported on first use.
"""

from inception_v1.extras import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__, "tune", measure_latency="export")

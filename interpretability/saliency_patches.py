"""What `saliency` 0.2.1 lacks for NumPy 2: `numpy.quantile` lost the argument `interpolation`, which guided integrated
gradients pass."""

from typing import Any

import numpy as np
from saliency.core import guided_ig


class _Numpy:
    """NumPy with the `quantile` of its first version."""

    @staticmethod
    def quantile(values: Any, fraction: float, interpolation: Any) -> Any:
        return np.quantile(values, fraction, method=interpolation)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def patched_guided_ig() -> guided_ig.GuidedIG:
    """`saliency.core.GuidedIG()` that runs."""
    guided_ig.np = _Numpy()
    return guided_ig.GuidedIG()

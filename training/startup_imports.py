"""Packages that Keras and TensorFlow import only because they are installed, kept from commands that need none."""

import contextlib
import sys
from collections.abc import Collection, Iterator

# Keras has wrappers for scikit-learn and figures by Matplotlib and OpenCV, TensorFlow a converter of JAX functions.
OPTIONAL = ("sklearn", "matplotlib", "cv2", "jax")


@contextlib.contextmanager
def without(packages: Collection[str]) -> Iterator[None]:
    """Within it packages count as not installed, unless they are imported already; afterwards they can be imported."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None, which `import` refuses
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]

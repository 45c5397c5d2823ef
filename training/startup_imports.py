"""What makes the imports at the start of a command faster: packages that it does not need are hidden from Keras and
TensorFlow, and no garbage is collected."""

import contextlib
import gc
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


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Within it TensorFlow is imported while no garbage is collected, and no later collection looks at its modules.

    Their hundreds of thousands of objects are no garbage. Collections that walk through them take a fifth to a third of
    the time of the import, and a twentieth of the time from there to the first step of a training. Where TensorFlow is
    imported already nothing changes, since there may be garbage of the caller's.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()

"""Memory that conversions leave behind."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Returns what is allocated inside and not used after it to the operating system, as far as the C library allows.

    Converters copy the weights dozens of times. Many copies end in cycles of references, for which the garbage
    collector would look late, since it counts objects and not bytes; and the C library keeps blocks that were freed.
    """
    freezes = not gc.get_freeze_count()  # unless a caller has frozen objects, which only it should release
    if freezes:
        gc.freeze()  # so that only what is new is looked at
    try:
        yield
    finally:
        gc.collect()
        if freezes:
            gc.unfreeze()
        with contextlib.suppress(AttributeError, OSError, TypeError):  # other C libraries than GNU's
            ctypes.CDLL(None).malloc_trim(0)

"""Memory that conversions leave behind."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Returns to the operating system what is allocated inside and not used after it.

    Converters copy the weights dozens of times. Many copies end in cycles of references, which Python would look for
    late, since each is one large object, and in the free lists of the C library.
    """
    gc.freeze()  # so that only what is new is looked at
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        with contextlib.suppress(AttributeError, OSError, TypeError):  # other C libraries than GNU's
            ctypes.CDLL(None).malloc_trim(0)

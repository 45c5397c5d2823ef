import gc
import weakref

import pytest

from training.export import memory


class Copy:
    """An object that refers to itself, as converters' graphs do."""

    def __init__(self):
        self.itself = self


def test_what_is_left_in_cycles_is_released_and_nothing_stays_frozen():
    gc.disable()
    try:
        with memory.released():
            kept, lost = Copy(), weakref.ref(Copy())
            assert lost() is not None
        assert lost() is None
        assert kept.itself is kept
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable()


def test_nothing_stays_frozen_after_an_error():
    @memory.released()
    def convert():
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        convert()
    assert gc.get_freeze_count() == 0

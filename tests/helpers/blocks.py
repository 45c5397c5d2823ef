"""GoogLeNets of a few blocks, for tests of what surrounds a network: with all nine, layers take most of their time."""

import contextlib
import sys

from inception_v1.spec import Inception, Spec

FEW = ("3b", "4a", "4d", "5b")  # the auxiliary heads read 4a and 4d; pools follow 3b and come before 5b
ENTER = "from tests.helpers.blocks import few_blocks\nblocks = few_blocks()\nblocks.__enter__()\n"  # never left
_trunk_of_all_blocks = Spec.trunk


def _trunk_of_few_blocks(self, widths=None, stem_widths=None):
    layers = _trunk_of_all_blocks(self, widths, stem_widths)
    return tuple(layer for layer in layers if not isinstance(layer, Inception) or layer.name[-2:] in FEW)


def have_few_blocks():
    """Whether networks of this process have a few blocks."""
    return Spec.trunk is _trunk_of_few_blocks


def few_blocks():
    """A context in which networks of this process, and of those that `ForkedProcess` starts, have a few blocks."""
    return _replaced(_trunk_of_few_blocks)


def all_blocks():
    """A context in which they have all nine."""
    return _replaced(_trunk_of_all_blocks)


@contextlib.contextmanager
def _replaced(trunk):
    before = Spec.trunk
    try:
        _set_trunk(trunk)
        yield
    finally:
        _set_trunk(before)


def _set_trunk(trunk):
    Spec.trunk = trunk
    if names := sys.modules.get("interpretability.layer_names"):
        names._from_lucid.cache_clear()  # which keeps the names of the layers of the first call

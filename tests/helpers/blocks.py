"""GoogLeNets of four blocks, for tests of what surrounds a network: with all nine, layers take most of their time."""

import contextlib
import sys

from inception_v1.spec import Inception, Spec

FOUR = ("3b", "4a", "4d", "5b")  # the auxiliary heads read 4a and 4d; pools follow 3b and come before 5b
ENTER = "from tests.helpers.blocks import four_blocks\nblocks = four_blocks()\nblocks.__enter__()\n"  # never left
_trunk_of_nine = Spec.trunk


def _trunk_of_four(self, widths=None, stem_widths=None):
    layers = _trunk_of_nine(self, widths, stem_widths)
    return tuple(layer for layer in layers if not isinstance(layer, Inception) or layer.name[-2:] in FOUR)


def are_four():
    """Whether networks of this process have four blocks."""
    return Spec.trunk is _trunk_of_four


def four_blocks():
    """A context in which networks of this process, and of those that `ForkedProcess` starts, have four blocks."""
    return _replaced(_trunk_of_four)


def all_blocks():
    """A context in which they have all nine."""
    return _replaced(_trunk_of_nine)


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

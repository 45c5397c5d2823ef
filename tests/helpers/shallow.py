"""GoogLeNets of four blocks, for tests of what surrounds a network: with all nine, layers take most of their time."""

import contextlib

from inception_v1.spec import Inception, Spec

BLOCKS = ("3b", "4a", "4d", "5b")  # the last of each stage but the fourth, and those that the auxiliary heads are on
_whole_trunk = Spec.trunk


def _shallow_trunk(self, *widths):
    layers = _whole_trunk(self, *widths)
    return tuple(layer for layer in layers if not isinstance(layer, Inception) or layer.name[-2:] in BLOCKS)


def is_shallow():
    """Whether networks of this process have four blocks."""
    return Spec.trunk is _shallow_trunk


@contextlib.contextmanager
def networks(shallow=True):
    """Gives every network of this process, and of those that `ForkedProcess` starts, four blocks or all nine."""
    before, Spec.trunk = Spec.trunk, _shallow_trunk if shallow else _whole_trunk
    try:
        yield
    finally:
        Spec.trunk = before

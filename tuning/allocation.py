"""How many channels each convolution keeps under a budget of multiply-accumulates."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inception_v1.cost import classifier_cost
from inception_v1.dependencies import channels, tables
from inception_v1.errors import UserError
from inception_v1.spec import WIDTH_OF, Spec
from tuning.space import BRANCH_WIDTHS

LEVELS = (0.75, 0.5, 0.25, 0.0)  # fractions of a branch's channels at which losses are measured; 0: the fewest it keeps
STEPS = 32  # fractions of a branch that the allocation steps through
EVEN = 1e-3  # nats for all channels of a branch: what costs no loss at all goes evenly

Widths = dict[str, int]  # convolution to its number of channels


@dataclasses.dataclass(frozen=True)
class Branch:
    """Convolutions that lose the same fraction of their channels: a branch of a block, or one of the stem.

    Attributes:
        name: of it, e.g. "4a/3x3" or "stem/conv2_3x3".
        convolutions: with their numbers of channels.
    """

    name: str
    convolutions: Widths

    def at(self, fraction: float, multiple: int) -> Widths:
        """Numbers of channels at a fraction: the nearest multiple, at least one, and never more than there are."""
        return {name: kept_width(width, fraction, multiple) for name, width in self.convolutions.items()}


def kept_width(width: int, fraction: float, multiple: int) -> int:
    """How many of `width` channels stay at a fraction of them: all at 1, whatever the multiple."""
    if fraction >= 1:
        return width
    return min(width, max(multiple, int(fraction * width / multiple + 0.5) * multiple))


def branches(spec: Spec) -> list[Branch]:
    """The branches of a network from the image on; a reduction goes with what it feeds."""
    found: dict[str, Widths] = {}
    of_field = {field: branch for branch, fields in BRANCH_WIDTHS.items() for field in fields}
    for name, width in channels(spec).items():
        block = f"{name[10:12]}/{of_field[WIDTH_OF[name[13:]]]}" if name.startswith("inception_") else f"stem/{name}"
        found.setdefault(block, {})[name] = width
    return [Branch(name, convolutions) for name, convolutions in found.items()]


def macs(spec: Spec, widths: Mapping[str, Any]) -> Any:
    """Multiply-accumulates at inference of a network with other numbers of channels; an array where they are arrays."""
    return classifier_cost(spec, *tables(spec, widths))[1]


def smallest(spec: Spec, multiple: int) -> int:
    """Multiply-accumulates of the smallest network that can be left."""
    return int(macs(spec, _widths(branches(spec), 0.0, multiple)))


def check_reachable(spec: Spec, budget: float, multiple: int) -> None:
    """Raises UserError where the network keeps the budget already, or cannot; the message names the bounds."""
    own, least = macs(spec, channels(spec)), smallest(spec, multiple)
    if budget >= own:
        raise UserError(
            f"Expected a budget below the network's own {own:,} multiply-accumulates; Received: {budget:,.0f}."
        )
    if budget < least:
        raise UserError(
            f"Expected a budget of at least {least:,} multiply-accumulates (keep_macs={least / own:.4f}), which "
            f"{multiple} channels in every convolution take; Received: {budget:,.0f} (keep_macs={budget / own:.4f})."
        )


def uniform(spec: Spec, budget: float, multiple: int) -> Widths:
    """The largest fraction of every convolution that keeps the budget. Raises UserError as `check_reachable`."""
    check_reachable(spec, budget, multiple)
    groups = branches(spec)
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if macs(spec, _widths(groups, middle, multiple)) <= budget else (low, middle)
    return _widths(groups, low, multiple)


def by_sensitivity(spec: Spec, losses: Mapping[str, Sequence[float]], budget: float, multiple: int) -> Widths:
    """Takes channels step by step from the branch where the loss rises least for the multiply-accumulates saved.

    The rises of single branches are taken to add up, and to be linear between the fractions where they were measured.

    Args:
        spec: the network.
        losses: rise of the loss, in nats, by branch at each of `LEVELS`.
        budget: of multiply-accumulates.
        multiple: of which every width that changes is one.

    Raises:
        UserError: as `check_reachable`.
    """
    check_reachable(spec, budget, multiple)
    ladders = [_Ladder(branch, losses[branch.name], multiple) for branch in branches(spec)]
    widths = channels(spec)
    while (now := int(macs(spec, widths))) > budget:
        open_ = [ladder for ladder in ladders if ladder.can_step]
        saved = now - macs(spec, _candidates(widths, open_))
        best = int(np.argmin([ladder.rise / max(gain, 1) for ladder, gain in zip(open_, saved, strict=True)]))
        widths |= open_[best].step()
    return widths


class _Ladder:
    """The widths that a branch steps down through, and what each step costs."""

    def __init__(self, branch: Branch, losses: Sequence[float], multiple: int) -> None:
        fractions = np.arange(STEPS, -1, -1) / STEPS
        measured = np.maximum.accumulate([0.0, *losses])  # fewer channels never help but by chance
        rises = np.interp(-fractions, [-1.0, *(-level for level in LEVELS)], measured) + EVEN * (1 - fractions)
        self._steps: list[tuple[float, Widths]] = []
        for fraction, rise in zip(fractions, rises, strict=True):
            widths = branch.at(float(fraction), multiple)
            if not self._steps or widths != self._steps[-1][1]:
                self._steps.append((float(rise), widths))
        self._at = 0

    @property
    def can_step(self) -> bool:
        """Whether the branch can lose more."""
        return self._at + 1 < len(self._steps)

    @property
    def rise(self) -> float:
        """Rise of the loss by the next step, in nats."""
        return self._steps[self._at + 1][0] - self._steps[self._at][0]

    @property
    def next(self) -> Widths:
        """Numbers of channels after the next step."""
        return self._steps[self._at + 1][1]

    def step(self) -> Widths:
        """Takes the next step; the numbers of channels after it."""
        self._at += 1
        return self._steps[self._at][1]


def _widths(groups: Sequence[Branch], fraction: float, multiple: int) -> Widths:
    return {name: width for branch in groups for name, width in branch.at(fraction, multiple).items()}


def _candidates(widths: Widths, ladders: Sequence[_Ladder]) -> dict[str, np.ndarray]:
    """Numbers of channels of every network that is one step away, by convolution."""
    columns = {name: np.full(len(ladders), width) for name, width in widths.items()}
    for number, ladder in enumerate(ladders):
        for name, width in ladder.next.items():
            columns[name][number] = width
    return columns

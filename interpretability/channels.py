"""Channels of a layer: which ones a user asks for, and which branch of a block they come from."""

import re

from inception_v1.errors import UserError
from inception_v1.layout import columns
from inception_v1.spec import BRANCHES, Inception, Spec


def channel_numbers(text: str | None, count: int, layer: str) -> list[int]:
    """The numbers in a text such as "0-63,70", each once and in order; None: all.

    Raises:
        UserError: another text, or a number that is not below `count`.
    """
    if text is None:
        return list(range(count))
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if found is None:
            raise UserError(f"Expected channels such as 0-63,70; Received: {text!r}.")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < count:
            raise UserError(
                f"Expected channels from 0 to {count - 1} of {layer!r}; Received: {part.strip()!r}. Did you mean "
                f"{min(first, last, count - 1)}-{count - 1}?"
            )
        numbers |= set(range(first, last + 1))
    return sorted(numbers)


def first_of_branches(spec: Spec, layer: str, count: int, each: int) -> list[int]:
    """So many channels from the beginning of each branch of a block, or of another layer with `count` channels."""
    spans = list(branch_spans(spec, layer).values()) or [range(count)]
    return [number for span in spans for number in span[:each]]


def branch_spans(spec: Spec, layer: str) -> dict[str, range]:
    """The channels of each branch of an Inception block, before or after its ReLUs; empty for any other layer."""
    for column in columns(spec):
        if isinstance(column.layer, Inception) and column.layer.name == layer.removesuffix("_pre_relu"):
            spans, start = {}, 0
            for box in column.boxes:
                if not box.is_reduction:
                    spans[box.branch] = range(start, start + box.channels)
                    start += box.channels
            assert tuple(spans) == BRANCHES
            return spans
    return {}

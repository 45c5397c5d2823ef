"""What a network may cost at inference."""

import dataclasses
from typing import Annotated

from training.recipe import Range, check_numbers

COST = Range(0, 10**15, above=True)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a network may cost at inference, without its auxiliary heads. Raises UserError for a bound out of range."""

    max_params: Annotated[float | None, COST] = None
    """Largest number of parameters, running statistics included."""
    max_macs: Annotated[float | None, COST] = None
    """Largest number of multiply-accumulates for one image."""
    keep_macs: Annotated[float | None, Range(0, 1, above=True)] = None
    """Largest relative difference of the multiply-accumulates from those of the network that the search starts from,
    e.g. 0.05."""
    max_latency_ms: Annotated[float | None, COST] = None
    """Largest number of milliseconds for a batch, by a latency table."""

    def __post_init__(self) -> None:
        check_numbers(self)

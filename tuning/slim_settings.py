"""How a trained network is slimmed. Importing this module imports neither Keras nor TensorFlow."""

import dataclasses
from typing import Annotated, Literal

from training.errors import UserError
from training.recipe import COUNT, NONNEGATIVE, POSITIVE, Range, check_choices, check_numbers
from tuning.budget import COST

SLIMMING = "slimming.json"  # by which the folder of a slimmed run is known
FEWEST_IMAGES = 32  # of which statistics and losses mean anything


@dataclasses.dataclass(frozen=True)
class SlimSettings:
    """Which channels are removed, and how the rest is trained.

    Raises:
        UserError: a value out of range, or not one budget.
    """

    keep_macs: Annotated[float | None, Range(0, 1, above=True)] = None
    """Fraction of the network's multiply-accumulates that may stay, e.g. 0.4."""
    max_macs: Annotated[float | None, COST] = None
    """Largest number of multiply-accumulates for one image, in place of keep_macs."""
    criterion: Literal["taylor", "magnitude", "batch-norm", "geometric-median", "rank", "correlation"] = "taylor"
    """How channels are ranked: by the change of the loss without them, the size of their filters, their scale in batch
    normalization, the distance to the other filters, the rank of their feature maps, or clusters of correlated ones."""
    allocation: Literal["sensitivity", "uniform"] = "sensitivity"
    """sensitivity: branches whose channels the loss misses less lose more; uniform: all lose the same fraction."""
    multiple: Annotated[int, Range(1, 256, below=False)] = 8
    """Every width that changes becomes a multiple of this number."""
    images: Annotated[int, Range(FEWEST_IMAGES, 10**6, below=False)] = 256
    """Training images that channels are ranked and losses measured on."""
    epochs: Annotated[int | None, COUNT] = None
    """Epochs of fine-tuning; none: half of the run's."""
    rate_factor: Annotated[float, POSITIVE] = 0.2
    """Factor of the run's learning rate in fine-tuning."""
    teacher: bool = True
    """Learn from the probabilities of the unslimmed network too (distillation)."""
    teacher_weight: Annotated[float, NONNEGATIVE] = 1.0
    """Weight of the distillation loss of each head beside its cross-entropy."""
    temperature: Annotated[float, POSITIVE] = 2.0
    """Temperature by which both networks' logits are divided in the distillation loss."""

    def __post_init__(self) -> None:
        check_numbers(self)
        check_choices(self)
        if (self.keep_macs is None) == (self.max_macs is None):
            raise UserError(
                "Expected one budget, keep_macs or max_macs; "
                f"Received: keep_macs={self.keep_macs}, max_macs={self.max_macs}."
            )

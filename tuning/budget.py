"""What a network may cost at inference."""

import dataclasses

from training.errors import UserError


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a network may cost at inference, without its auxiliary heads.

    Attributes:
        max_params: most parameters, running statistics included.
        max_macs: most multiply-accumulates for one image.
        keep_macs: largest relative difference of the multiply-accumulates from those of the network that the search
            starts from.

    Raises:
        UserError: a bound out of range.
    """

    max_params: float | None = None
    max_macs: float | None = None
    keep_macs: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_params", "max_macs"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"Expected {name} to be a number above zero, or None; Received: {name}={value!r}.")
        if self.keep_macs is not None and not 0 < self.keep_macs < 1:
            raise UserError(
                f"Expected keep_macs to be a number above 0 and below 1, or None; Received: {self.keep_macs!r}."
            )

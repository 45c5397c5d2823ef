"""Numbers and widths as a table cell can hold them."""

from inception_v1.spec import Widths


def shorten(value: float | int | str | None) -> str:
    """A value of a dimension in four digits at most."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def join_widths(widths: Widths) -> str:
    """The six widths of a block, e.g. "64-96-128-16-32-32"."""
    return "-".join(map(str, widths))

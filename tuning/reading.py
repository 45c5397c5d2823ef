"""What a report asks of a search's results: its dimensions, its trials in order of merit, the paper's among them."""

from collections.abc import Sequence

import numpy as np

from inception_v1.spec import Widths
from tuning.results import Results, Trial


def dimensions(results: Results) -> list[str]:
    """Names of the dimensions, in the order in which the trials first have them."""
    return list(dict.fromkeys(name for trial in results.trials for name in trial.values))


def paper(results: Results) -> Trial | None:
    """Trial 0, which has the paper's widths; None where the search has not come to it."""
    return next((trial for trial in results.trials if trial.number == 0), None)


def relative_macs(trial: Trial, results: Results) -> float | None:
    """Multiply-accumulates as a multiple of trial 0's; None where there is no such number."""
    first = paper(results)
    return trial.macs / first.macs if first and first.macs else None


def front(results: Results) -> list[Trial]:
    """The trials that none beats with as few multiply-accumulates, cheapest first."""
    sign, kept = 1 if results.direction == "max" else -1, []
    for trial in sorted(results.ranked, key=lambda trial: (trial.macs, -sign * trial.score)):
        if not kept or sign * trial.score > sign * kept[-1].score:
            kept.append(trial)
    return kept


def worst_shown(scores: Sequence[float], direction: str) -> float:
    """The worst score that is not far worse than the rest: within 1.5 interquartile ranges of the worse quartile.

    A trial that diverged would else press all others into one line. Of fewer than 8 scores, and where more than half
    are equal, it is the worst.
    """
    gains = np.array(scores) if direction == "max" else -np.array(scores)
    low, high = np.percentile(gains, (25, 75))
    if len(gains) < 8 or low == high:
        low, high = gains.min(), gains.min()
    worst = gains[gains >= low - 1.5 * (high - low)].min()
    return float(worst if direction == "max" else -worst)


def last_line(message: str) -> str:
    """The last line of a message that says something; "" where none does."""
    return next((line.strip() for line in reversed(encodable(message).splitlines()) if line.strip()), "")


def encodable(message: str) -> str:
    """The message with "?" for what UTF-8 cannot hold, such as a file name in another encoding."""
    return message.encode("utf-8", "replace").decode("utf-8")


def short(value: float | int | str | None) -> str:
    """A value of a dimension in four digits at most."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def joined(widths: Widths) -> str:
    """The six widths of a block, e.g. "64-96-128-16-32-32"."""
    return "-".join(map(str, widths))

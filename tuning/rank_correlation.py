"""How far two rankings of the same networks agree."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, spearmanr

FEWEST = 4  # networks of which a correlation means anything
RESAMPLES = 2000


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation.

    Attributes:
        rho: from -1 to 1.
        low, high: of its 95 % interval, by the bootstrap over the networks.
        networks: how many.
    """

    rho: float
    low: float
    high: float
    networks: int

    def __str__(self) -> str:
        return f"{self.rho:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, {self.networks} networks)"


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> RankCorrelation | None:
    """Spearman's correlation of two scores of the same networks; None of fewer than four, or where all are equal."""
    if len(first) < FEWEST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples in which all scores are equal
        resampled = bootstrap(
            (first, second), _rho, n_resamples=RESAMPLES, paired=True, vectorized=False, method="percentile", rng=0
        )
    low, high = np.nanquantile(resampled.bootstrap_distribution, (0.025, 0.975))
    return RankCorrelation(_rho(first, second), float(low), float(high), len(first))


def _rho(first: Sequence[float], second: Sequence[float]) -> float:
    return float(spearmanr(first, second).statistic)

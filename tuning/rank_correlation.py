"""How far two rankings of the same networks agree: on shared weights, and trained alone."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, spearmanr

from tuning.results import Results, Trial, score_of

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


class RankCheck(NamedTuple):
    """Whether trials on shared weights rank as the same networks trained alone.

    Attributes:
        trials: that were trained alone, evenly spread over the ranking, best first.
        correlation: of both scores; None of too few.
    """

    trials: list[Trial]
    correlation: RankCorrelation | None


def evenly_spread(ranked: Sequence[Trial], count: int) -> list[Trial]:
    """So many trials at even distances in a ranking, the first among them, and of two and more the last; all where
    there are no more."""
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [ranked[place] for place in places]


def check_ranks(found: Results) -> RankCheck:
    """The correlation over the trials that `rank_check` of a search asks for, as far as they were trained alone."""
    count = found.settings.get("rank_check", 0)
    assert isinstance(count, int)
    trials = [trial for trial in evenly_spread(found.ranked, count) if trial.number in found.alone]
    alone = [found.alone[trial.number] for trial in trials]
    return RankCheck(trials, rank_correlation([score_of(trial) for trial in trials], alone))

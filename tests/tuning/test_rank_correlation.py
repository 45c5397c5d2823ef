"""Rank correlations and their intervals."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.helpers.searches import make_results, make_trial
from tuning.rank_correlation import check_ranks, evenly_spread, rank_correlation


def test_the_interval_holds_the_correlation_and_narrows_with_more_networks():
    random, widths = np.random.default_rng(0), []
    for count in (12, 100):
        first = random.normal(size=count)
        second = first + 0.5 * random.normal(size=count)
        found = rank_correlation(first, second)
        assert found.rho == pytest.approx(spearmanr(first, second).statistic)
        assert -1 <= found.low < found.rho < found.high <= 1
        assert found == rank_correlation(first, second)  # repeatable
        widths.append(found.high - found.low)
    assert widths[1] < 0.5 * widths[0]


def test_rankings_and_not_values_are_correlated():
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 1000]).rho == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4, 5], [5, 4, 3, 2, -9]).rho == pytest.approx(-1)


def test_too_few_and_equal_scores_have_no_correlation():
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None


def test_the_check_takes_trials_at_even_distances_that_were_trained_alone():
    trials = [make_trial(number, 0.5 + 0.01 * number) for number in range(9)]
    ranked = trials[::-1]
    assert evenly_spread(ranked, 3) == [ranked[0], ranked[4], ranked[8]]
    assert evenly_spread(ranked, 20) == ranked
    found = make_results(*trials, settings={"rank_check": 5})
    alone = {8: 0.9, 6: 0.8, 4: 0.7, 2: 0.6, 7: 0.1}  # 7 was retrained, and 0 is not trained yet
    checked = check_ranks(found.__class__(found.settings, found.objective, "max", found.trials, alone))
    assert [trial.number for trial in checked.trials] == [8, 6, 4, 2]
    assert (checked.correlation.rho, checked.correlation.networks) == (pytest.approx(1), 4)

"""How much the score depends on each dimension, and when a search is too small to tell."""

import dataclasses
import re

import pytest

from tests.helpers.searches import make_results, make_trial, make_trials
from tuning.importance import importance
from tuning.report import figures


def test_importance_finds_what_matters():
    found = importance(make_results(*make_trials(40, 4, ["d2"], noise=0.005)))
    assert found.names[0] == "d2"
    assert found.r2 > 0.7
    assert found.doubt == ""
    assert found.means[0] > 0.5 > 0.1 > found.means[1]
    texts = [make_trial(n, 0.9 if n % 3 else 0.5, {"a": n % 5, "schedule": "abc"[n % 3]}) for n in range(30)]
    assert importance(make_results(*texts)).names[0] == "schedule"
    wild = make_trials(40, 4, ["d2"], noise=0.005)
    wild[7] = dataclasses.replace(wild[7], score=-50.0)  # one that diverged
    assert importance(make_results(*wild)).names[0] == "d2"


@pytest.mark.parametrize(
    ("trials", "reason", "modeled"),
    [
        (make_trials(3, 2, ["d0"]), r"Completed trials: 3; a model needs at least 4", False),
        (make_trials(7, 2, ["d0"]), r"7 trials of 2 dimensions are too few \(at least 8\)", True),
        (make_trials(9, 5, ["d0"]), r"9 trials of 5 dimensions are too few \(at least 10\)", True),
        (make_trials(30, 3, noise=0.1), r"no better than their mean", True),
        ([make_trial(n, 0.5) for n in range(10)], r"All 10 scores are equal", False),
    ],
)
def test_importance_reports_when_it_cannot_be_trusted(trials, reason, modeled):
    found = importance(make_results(*trials))
    assert re.search(reason, found.doubt)
    assert (found.r2 is not None) == modeled
    figure = figures.importance_bars(found)
    shown = figure.axes[0].get_title() if modeled else figure.axes[0].texts[0].get_text()
    assert not modeled or f"R² {found.r2:.2f}" in shown
    assert re.search(f"(Not to be trusted|cannot be determined).*{reason}", shown, re.S)

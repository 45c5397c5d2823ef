"""The results of a search: the Pareto front, and messages in one line."""

from tests.helpers.searches import make_results, make_trial
from tuning.results import last_line


def test_the_front_holds_the_trials_that_none_beats_at_their_cost():
    costs = {0: (5, 0.7), 1: (1, 0.5), 2: (3, 0.6), 3: (4, 0.6), 4: (2, 0.4), 5: (5, 0.8), 6: (9, 0.8)}
    trials = [make_trial(n, score, macs=macs) for n, (macs, score) in costs.items()]
    assert [t.number for t in make_results(*trials).front] == [1, 2, 5]
    assert [t.number for t in make_results(*trials, direction="min").front] == [1, 4]


def test_the_last_line_of_a_message_is_the_last_with_text():
    assert last_line("a\nb: c\n \n") == "b: c"
    assert last_line(" \n") == ""

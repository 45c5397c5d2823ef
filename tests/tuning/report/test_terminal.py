"""The table of the best trials on the terminal."""

from tests.helpers.searches import make_results, make_trial, make_trials, rendered
from tuning.report.terminal import best_table


def cells(text):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]


def test_the_terminal_shows_the_best_trials_and_always_the_first():
    found = make_results(
        make_trial(0, 0.5), *(make_trial(n, 0.6 + n / 100, {"[b]": n, "1x1": 0.123456}) for n in range(1, 8))
    )
    rows = cells(rendered(best_table(found, top=3)))
    ratio = f"{found.trials[7].macs / found.trials[0].macs:.2f}x"
    assert rows[0] == ["7", "0.6700", "[b]=7  1x1=0.1235", f"{found.trials[7].params:,}", ratio, "12"]
    assert [row[0] for row in rows] == ["7", "6", "5", "0"]
    assert rows[3][4] == "1.00x"
    for trials, numbers in [
        ((make_trial(0, None), make_trial(1, 0.5)), ["1", "0"]),
        ((make_trial(0, 0.9), make_trial(1, 0.5)), ["0", "1"]),
    ]:
        assert [row[0] for row in cells(rendered(best_table(make_results(*trials))))] == numbers


def test_the_terminal_shortens_many_dimensions():
    rows = cells(rendered(best_table(make_results(*make_trials(3, 54))), width=200))
    assert rows[0][2].endswith("and 49 more")

"""What the figures of a search show."""

import matplotlib.colors
import numpy as np
import pytest

from tests.helpers.searches import PAPER, make_results, make_trial, make_trials
from tuning.importance import importance
from tuning.report import figures
from tuning.results import RUNNING, worst_shown


def test_pareto_draws_the_front_as_steps_and_names_best_and_paper():
    trials = [
        make_trial(0, 0.7, macs=50),
        make_trial(1, 0.5, macs=10),
        make_trial(2, 0.8, macs=80),
        make_trial(3, 0.4, macs=60),
    ]
    (axes,) = figures.pareto(make_results(*trials)).axes
    (steps,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert steps.get_xydata()[:-1].tolist() == [[10, 0.5], [50, 0.7], [80, 0.8]]
    assert steps.get_xydata()[-1][1] == 0.8
    names = {text.get_text(): text.xy for text in axes.texts}
    assert names == {"the paper's widths\n0.7000": (50, 0.7), "best (trial 2)\n0.8000": (80, 0.8)}
    (axes,) = figures.pareto(make_results(*trials[:2])).axes
    assert [text.get_text() for text in axes.texts] == ["the paper's widths are the best\n0.7000"]


@pytest.mark.parametrize(
    ("direction", "expected"), [("max", [0.5, 0.5, 0.7, 0.7, 0.7]), ("min", [0.5, 0.4, 0.4, 0.4, 0.4])]
)
def test_history_draws_the_best_so_far(direction, expected):
    trials = [make_trial(0, 0.5), make_trial(1, 0.4), make_trial(2, None), make_trial(3, 0.7), make_trial(4, 0.6)]
    (axes,) = figures.history(make_results(*trials, make_trial(5, None, status=RUNNING), direction=direction)).axes
    (steps,) = [line for line in axes.lines if line.get_label() == "best so far"]
    assert steps.get_xdata().tolist() == [0, 1, 3, 4, 5]
    assert steps.get_ydata().tolist() == expected
    (failed,) = [line for line in axes.lines if line.get_label() == "failed: 1"]
    assert failed.get_xdata() == [2]


def test_a_trial_that_diverged_does_not_flatten_the_others():
    scores = [0.1, *np.linspace(0.9, 0.95, 9)]
    assert worst_shown(scores, "max") == 0.9
    assert worst_shown([-score for score in scores], "min") == -0.9
    assert worst_shown(scores[:7], "max") == 0.1  # too few to judge
    figure = figures.history(make_results(*(make_trial(n, score) for n, score in enumerate(scores))))
    assert figure.axes[0].get_ylim()[0] > 0.88
    figure = figures.pareto(make_results(*(make_trial(n, score, macs=n + 1) for n, score in enumerate(scores))))
    assert figure.axes[0].get_ylim()[0] > 0.88
    (paper,) = [text for text in figure.axes[0].texts if "the paper's widths" in text.get_text()]
    assert paper.get_text().endswith("0.1000")
    assert paper.xy[1] > figure.axes[0].get_ylim()[0]
    assert "far worse, not to scale: 1, the worst 0.1" in [line.get_label() for line in figure.axes[0].lines]


def lines_of(axes):
    return [path.vertices for path in axes.collections[0].get_paths()]


def test_parallel_coordinates_draw_the_best_last_and_darkest():
    trials = [make_trial(n, score, {"a": n, "b": 5 - n}) for n, score in enumerate((0.5, 0.9, 0.7))]
    found = make_results(*trials)
    axes, bar = figures.parallel(found, importance(found)).axes
    assert [line[:, 1].tolist() for line in lines_of(axes)] == [[0, 1], [1, 0], [0.5, 0.5]]
    (best,) = [line for line in axes.lines if line.get_label() == "best: trial 1, 0.9000"]
    assert best.get_ydata().tolist() == [0.5, 0.5]
    assert best.get_zorder() > axes.collections[0].get_zorder()
    drawn = axes.collections[0]
    luminance = matplotlib.colors.rgb_to_hsv(drawn.to_rgba(drawn.get_array())[:, :3])[:, 2]
    assert luminance[-1] == luminance.min() < luminance[0]
    assert bar.get_ylabel() == "val_main_accuracy"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


def test_parallel_coordinates_keep_the_twelve_most_important_of_many():
    found = make_results(*make_trials(80, 20, ["d15", "d10"]))
    axes = figures.parallel(found, importance(found)).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert len(names) == 12
    assert {"d15", "d10"} <= set(names)
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert "the 12 most important of 20 dimensions" in axes.figure.get_suptitle()


def test_axes_follow_their_values():
    log = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    at, ticks = figures.placed(list(log), log)
    assert at == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert dict((text, where) for where, text in ticks)["0.001"] == pytest.approx(1 / 3)
    even = np.arange(1, 101)
    assert figures.placed([1, 50, None, 100], even)[0] == pytest.approx([0, 49 / 99, np.nan, 1], nan_ok=True)
    at, ticks = figures.placed(["b", None, "a"], np.array([]))
    assert at == pytest.approx([0.75, np.nan, 0.25], nan_ok=True)
    assert ticks == [(0.25, "a"), (0.75, "b")]


def test_dimensions_alike_share_a_scale():
    columns = [[0.25, 1.5], [0.3, 1.4, None], [1e-3, 0.1], ["x", "y"], [64, 128]]
    shared = figures.scales(columns)
    assert [sorted(scale) for scale in shared[:2]] == [[0.25, 0.3, 1.4, 1.5]] * 2
    assert [sorted(scale) for scale in shared[2:]] == [[1e-3, 0.1], [], [64, 128]]


def test_importance_bars_show_the_score_of_the_model():
    found = importance(make_results(*make_trials(20, 3, ["d1"])))
    figure = figures.importance_bars(found)
    assert figure.axes[0].get_title() == f"random forest on 20 trials, cross-validated R² {found.r2:.2f}"
    assert [bar.get_width() for bar in figure.axes[0].patches] == list(found.means)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(found.names)


def test_widths_are_drawn_beside_the_paper_s():
    best = make_trial(4, 0.9)
    above, below = figures.widths(make_results(make_trial(0, 0.5), best)).axes
    for axes, columns in ((above, (0, 2, 4, 5)), (below, (1, 3))):
        heights = [[bar.get_height() for bar in container] for container in axes.containers]
        sides = [
            [row[column] for row in spec.block_widths().values()] for spec in (PAPER, best.spec) for column in columns
        ]
        assert heights == sides
        colors = [container[0].get_facecolor()[:3] for container in axes.containers]
        expected = [list(figures.BRANCH_COLORS.values())[(0, 1, 1, 2, 2, 3)[column]] for column in columns] * 2
        assert colors == [matplotlib.colors.to_rgb(color) for color in expected]
    assert above.containers[3][0].get_y() == 32 + 64 + 16  # block 3a's pool on its three other branches

"""The part of a search's page on shared weights: which trials were trained alone, and whether the rankings agree."""

import io

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from training.report.page import EmbeddedFigure, Section, Table, embed
from tuning.rank_correlation import RankCheck, check_ranks
from tuning.results import Results, Trial, score_of

CHECKED, OTHERS = "#4c78a8", "#e45756"
CAPTION = (
    "Each dot is a network: to the right its score as a slice of the shared weights, upward its score trained alone. "
    "The closer the blue dots are to a rising line, the more can be trusted in the ranking; the red ones are "
)
RED = "the best of the search, trained alone for the choice among them."
RED_OF_A_FRONT = "others that were trained alone, chosen from the front."


def shared_section(results: Results) -> Section | None:
    """The section of a search on shared weights; None of any other."""
    if "step_samples" not in results.settings:
        return None
    checked = check_ranks(results)
    text = (
        "A score is that of a slice of one network (folder widest), with statistics of batch normalization measured "
        f"on {results.settings['statistics_images']} training images. "
    )
    if not results.alone:
        text += "No trial was trained alone (--retrain, --rank-check), so that nothing confirms the ranking."
    elif checked.correlation:
        text += f"Spearman's correlation with networks trained alone: {checked.correlation}."
    else:
        text += "Too few trials were trained alone for a rank correlation (--rank-check)."
    figures = [_embedded(results, checked)] if results.ranked_alone else []
    return Section("Trained alone", text, _table(results), figures, {})


def _table(results: Results) -> Table:
    """The trials that were trained alone, best first, with both ranks among them."""
    trials = results.ranked_alone
    sign = -1 if results.direction == "max" else 1
    ranks = rankdata([sign * score_of(trial) for trial in trials], "min") if trials else ()
    rows = [
        (trial.number, f"{results.alone[trial.number]:.4f}", f"{score_of(trial):.4f}", int(rank), f"{trial.macs:,}")
        for trial, rank in zip(trials, ranks, strict=True)
    ]
    heads = ("trial", "trained alone", "on shared weights", "rank there", "MACs")
    return Table(heads, rows, {0: "best"}) if rows else Table((), ())


def scatter(results: Results, checked: RankCheck) -> Figure:
    """Both scores of the trials that were trained alone."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rest = [trial for trial in results.ranked_alone if trial not in checked.trials]
    best = "chosen from the front" if results.pareto else "best of the search"
    for trials, color, label in ((checked.trials, CHECKED, "rank check"), (rest, OTHERS, best)):
        if trials:
            axes.plot(*_points(results, trials), "o", color=color, alpha=0.8, label=label)
    axes.set(xlabel=f"{results.objective}, slice of the shared weights", ylabel=f"{results.objective}, trained alone")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _points(results: Results, trials: list[Trial]) -> tuple[np.ndarray, np.ndarray]:
    shared = np.array([score_of(trial) for trial in trials])
    return shared, np.array([results.alone[trial.number] for trial in trials])


def _embedded(results: Results, checked: RankCheck) -> EmbeddedFigure:
    file = io.BytesIO()
    scatter(results, checked).savefig(file, format="png", dpi=100)
    return embed("alone", CAPTION + (RED_OF_A_FRONT if results.pareto else RED), file.getvalue())

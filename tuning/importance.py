"""How much a search's score depends on each dimension, and whether that can be trusted."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

from tuning.results import Results, scores_of, worst_shown

FEWEST_TO_FIT, FEWEST_TO_TRUST = 4, 8  # trials; to trust, twice the dimensions too
TREES = 40


@dataclasses.dataclass(frozen=True)
class Importance:
    """Importance by a random forest that predicts the score from the values, measured on trials it was not fitted to.

    A score far worse than the rest counts as the worst of the rest: one that diverged would decide everything.

    Attributes:
        names: of the dimensions, the most important first; in their own order where there is no model.
        means: R² lost by shuffling each dimension; empty where there is no model.
        spreads: standard deviations of the same over folds and shuffles.
        r2: cross-validated R² of the forest; None where there is no model.
        trials: that were used.
        doubt: why it cannot be trusted, a sentence; "" where it can.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    r2: float | None
    trials: int
    doubt: str


def importance(results: Results) -> Importance:
    """Permutation importance of each dimension, cross-validated. Equal results give equal numbers."""
    names, trials = results.dimensions, results.ranked
    scores = scores_of(trials)
    if doubt := _no_model(len(names), scores):
        return Importance(tuple(names), (), (), None, len(trials), doubt)
    columns = np.column_stack([encoded([trial.values.get(name) for trial in trials]) for name in names])
    worst = worst_shown(scores, results.direction)
    lost, r2 = _lost(columns, np.maximum(scores, worst) if results.direction == "max" else np.minimum(scores, worst))
    order = np.argsort(-lost.mean(axis=1), kind="stable")
    return Importance(
        tuple(names[i] for i in order),
        tuple(lost.mean(axis=1)[order].tolist()),
        tuple(lost.std(axis=1)[order].tolist()),
        r2,
        len(trials),
        _doubt(len(names), len(trials), r2),
    )


def encoded(values: Sequence[float | str | None]) -> np.ndarray:
    """Numbers as they are, texts by their place in alphabetical order, NaN for None: a tree needs no more."""
    texts = sorted({str(value) for value in values if isinstance(value, str)})
    place = {text: float(number) for number, text in enumerate(texts)}
    if texts:
        return np.array([np.nan if value is None else place.get(str(value), -1.0) for value in values])
    return np.array([np.nan if value is None else float(value) for value in values])


def _no_model(names: int, scores: np.ndarray) -> str:
    if not names:
        return "The search has no dimensions."
    if len(scores) < FEWEST_TO_FIT:
        return f"Completed trials: {len(scores)}; a model needs at least {FEWEST_TO_FIT}."
    return "" if np.ptp(scores) > 0 else f"All {len(scores)} scores are equal."


def _doubt(names: int, trials: int, r2: float) -> str:
    needed = max(FEWEST_TO_TRUST, 2 * names)
    if trials < needed:
        return f"{trials} trials of {names} dimensions are too few (at least {needed})."
    return "" if r2 > 0 else "The model predicts unseen trials no better than their mean does."


def _lost(columns: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, float]:
    """R² lost by each shuffle, `(dimensions, folds x shuffles)`, and R² of the predictions of all folds together."""
    shuffles = int(np.clip(120 / columns.shape[1], 4, 20))  # many dimensions must not take minutes
    folds = KFold(min(5, len(scores) // 2), shuffle=True, random_state=0)
    predictions, lost = np.empty_like(scores), []
    for seen, unseen in folds.split(columns):
        model = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=0).fit(columns[seen], scores[seen])
        predictions[unseen] = model.predict(columns[unseen])
        found = permutation_importance(
            model,
            columns[unseen],
            scores[unseen],
            scoring="neg_mean_squared_error",
            n_repeats=shuffles,
            random_state=0,
        )
        lost.append(found.importances / scores.var())  # a fold's own variance may be close to zero
    return np.concatenate(lost, axis=1), float(r2_score(scores, predictions))

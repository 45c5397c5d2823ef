import json
import warnings

import numpy as np
import pytest
import scipy.stats

from training.evaluation.metrics import Predictions, mcnemar, predicted_classes, score, summarize


def random_predictions(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.3), count).astype("float32")
    labels = np.where(rng.random(count) < 0.6, p.argmax(axis=1), rng.integers(0, classes, count))
    return Predictions({"main": p}, labels)


def test_score_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]], "float32")
    result = score(Predictions({"main": p, "aux1": p[::-1]}, np.array([0, 2, 1])))
    assert result["main"]["top1"] == pytest.approx(1 / 3)  # the tie of the third image is a miss
    assert result["main"]["top5"] == 1
    assert result["main"]["loss"] == pytest.approx(-np.log([0.7, 0.3, 1 / 3]).mean(), rel=1e-6)
    assert result["aux1"]["top1"] == 0


def test_top5_and_nan():
    p = np.tile(np.arange(10, dtype="float32") / 45, (2, 1))
    p[1] = np.nan
    result = score(Predictions({"main": p}, np.array([5, 5])))["main"]
    assert (result["top1"], result["top5"]) == (0, 0.5)
    assert result["ece"] == pytest.approx((9 / 45 + 1) / 2)
    json.dumps(result, allow_nan=False)


def test_no_class_is_predicted_where_classes_tie_or_are_nan():
    p = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [np.nan, 0, 1], [0, 1, np.nan], [0.1, 0.2, 0.7]], "float32")
    assert predicted_classes(p).tolist() == [-1, -1, -1, -1, 2]


def test_calibration_error_by_hand():
    confidence = np.array([0.55, 0.57, 0.95, 0.97])
    p = np.stack([confidence, 1 - confidence], axis=1).astype("float32")
    result = score(Predictions({"main": p}, np.array([0, 1, 0, 0])))["main"]
    # Half of the images are in (8/15, 9/15], with confidence 0.56 and accuracy 0.5; half in (14/15, 1], 0.96 and 1.
    assert result["ece"] == pytest.approx(0.5 * 0.06 + 0.5 * 0.04)


def test_calibration_error_of_many_images():
    predictions = random_predictions(3000, 4)
    p, expected = predictions.by_head["main"], 0.0
    for lower in range(15):
        inside = [i for i in range(len(p)) if lower / 15 < p[i].max() <= (lower + 1) / 15]
        if inside:
            right = sum(p[i].argmax() == predictions.labels[i] for i in inside) / len(inside)
            expected += len(inside) / len(p) * abs(right - sum(float(p[i].max()) for i in inside) / len(inside))
    assert expected > 0.1
    assert score(predictions)["main"]["ece"] == pytest.approx(expected, abs=1e-9)


def test_intervals_are_those_of_the_binomial_and_of_the_mean():
    predictions = random_predictions(2000, 10)
    scores = score(predictions)["main"]
    for name in ("top1", "top5"):
        expected = scipy.stats.binom(2000, scores[name]).ppf([0.025, 0.975]) / 2000
        np.testing.assert_allclose(scores["intervals"][name], expected, atol=0.003)
    losses = -np.log(predictions.by_head["main"][np.arange(2000), predictions.labels].astype("float64"))
    half = 1.96 * losses.std() / np.sqrt(2000)
    np.testing.assert_allclose(scores["intervals"]["loss"], [losses.mean() - half, losses.mean() + half], rtol=0.02)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_few_images_have_intervals_too(count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score(random_predictions(count, 10))["main"]
    for name, (low, high) in scores["intervals"].items():
        assert low <= scores[name] <= high
        assert (low == high) == (count == 1) or name != "loss"


def test_precision_recall_and_f1_by_class():
    predictions = random_predictions(500, 6)
    labels, p = predictions.labels, predictions.by_head["main"]
    labels[labels == 4] = 5  # no image of class 4, though it is predicted
    p[:, 2] = 0  # class 2 is never predicted
    p[:20] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = summarize(predictions, list("abcdef"))
    assert (result["images"], list(result["classes"])) == (500, list("abcdef"))
    best = np.where(np.isnan(p[:, 0]), -1, p.argmax(axis=1))
    for label, numbers in enumerate(result["classes"].values()):
        right = np.sum((labels == label) & (best == label))
        precision, recall = right / max(1, np.sum(best == label)), right / max(1, np.sum(labels == label))
        f1 = 2 * precision * recall / (precision + recall) if right else 0
        assert numbers == pytest.approx(
            {"precision": precision, "recall": recall, "f1": f1, "images": np.sum(labels == label)}
        )
    assert result["classes"]["e"] == {"precision": 0, "recall": 0, "f1": 0, "images": 0}
    assert sum(c["recall"] * c["images"] for c in result["classes"].values()) == pytest.approx(
        result["heads"]["main"]["top1"] * 500
    )
    json.dumps(result, allow_nan=False)


def test_mcnemar_by_hand():
    right = np.array([[True, True]] * 7 + [[True, False]] * 1 + [[False, True]] * 9 + [[False, False]] * 3)
    counts, p = mcnemar(*right.T)
    assert counts == {"both": 7, "first": 1, "second": 9, "neither": 3}
    assert p == pytest.approx(0.021484375)  # 2 (1 + 10) / 2^10
    assert mcnemar(right[:7, 0], right[:7, 1])[1] == 1

import numpy as np
import pytest
import tensorflow as tf

from inception_v1 import build_googlenet
from training import evaluate
from training.evaluate import Predictions


def test_score_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]], "float32")
    result = evaluate.score(Predictions({"main": p, "aux1": p[::-1]}, np.array([0, 2, 1])))
    assert result["main"]["top1"] == pytest.approx(1 / 3)  # the tie of the third image is a miss
    assert result["main"]["top5"] == 1
    assert result["main"]["loss"] == pytest.approx(-np.log([0.7, 0.3, 1 / 3]).mean(), rel=1e-6)
    assert result["aux1"]["top1"] == 0


def test_top5_and_nan():
    p = np.tile(np.arange(10, dtype="float32") / 45, (2, 1))
    p[1] = np.nan
    result = evaluate.score(Predictions({"main": p}, np.array([5, 5])))["main"]
    assert (result["top1"], result["top5"]) == (0, 0.5)


def test_predict_counts_a_partial_batch():
    model = build_googlenet(input_shape=(32, 32, 1), classes=3, width_multiplier=0.1)
    x, y = np.random.default_rng(0).normal(size=(7, 32, 32, 1)).astype("float32"), np.arange(7) % 3
    predictions = evaluate.predict(model, tf.data.Dataset.from_tensor_slices((x, y)).batch(4))
    np.testing.assert_array_equal(predictions.labels, y)
    for head, expected in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(predictions.by_head[head], expected, atol=1e-6)

import json

import numpy as np
import pytest

from training.evaluation.compare import compare


def test_compare_counts_which_run_is_right(runs, predictions_of):
    result = compare(*runs)
    alone = (predictions_of[0, 1], predictions_of[1, 1])
    right = [predictions.by_head["main"].argmax(axis=1) == predictions.labels for predictions in alone]
    assert result["right"]["both"] == np.sum(right[0] & right[1])
    assert result["right"]["first"] == np.sum(right[0] & ~right[1]) > 0
    assert result["right"]["second"] == np.sum(~right[0] & right[1]) > 0
    assert sum(result["right"].values()) == result["images"] == 50
    assert result["significant"] == (result["p"] < 0.05)
    assert result["difference"]["top1"] == pytest.approx(right[1].mean() - right[0].mean())
    low, high = result["difference"]["interval"]
    half = 1.96 * np.std(right[1].astype(int) - right[0]) / np.sqrt(50)
    assert low < result["difference"]["top1"] < high
    assert high - low == pytest.approx(2 * half, rel=0.2)
    for run, one, r in zip(runs, result["runs"], right):
        assert (one["run"], one["heads"]["main"]["top1"]) == (str(run), pytest.approx(r.mean()))
    json.dumps(result, allow_nan=False)

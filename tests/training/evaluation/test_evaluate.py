import importlib.util

import numpy as np
import pytest

from inception_v1.errors import MissingExtraError
from tests.helpers.runs import DIGITS, save_run
from training.evaluation.compare import compare
from training.evaluation.evaluate import evaluate, evaluations
from training.evaluation.metrics import Predictions, summarize


def test_an_ensemble_is_the_mean_of_its_models_at_each_number_of_crops(runs, predictions_of):
    found = list(evaluations(runs, None, (1, 10)))
    names = [str(run) for run in runs]
    assert [(e.runs, e.crops) for e in found] == [(names[:1], 1), (names, 1), (names[:1], 10), (names, 10)]
    for crops, (first, both) in zip((1, 10), (found[:2], found[2:])):
        a, b = predictions_of[0, crops].by_head["main"], predictions_of[1, crops].by_head["main"]
        assert np.abs(a - b).max() > 0.1
        assert list(first.predictions.by_head) == ["main", "aux1", "aux2"]
        assert list(both.predictions.by_head) == ["main"]  # the second has no other
        aux = predictions_of[0, crops].by_head["aux2"]
        np.testing.assert_allclose(first.predictions.by_head["aux2"], aux, atol=1e-6)
        np.testing.assert_allclose(both.predictions.by_head["main"], np.mean([a, b], axis=0), atol=1e-6)
        np.testing.assert_array_equal(both.predictions.labels, predictions_of[0, 1].labels)


def test_evaluate_gives_the_numbers_of_the_ensemble(runs, predictions_of):
    result = evaluate(runs)
    a, b = predictions_of[0, 1], predictions_of[1, 1]
    mean = np.mean([a.by_head["main"], b.by_head["main"]], axis=0)
    expected = summarize(Predictions({"main": mean}, a.labels), DIGITS)
    assert result["heads"].keys() == {"main"}
    assert result["heads"]["main"]["loss"] == pytest.approx(expected["heads"]["main"]["loss"], abs=1e-5)
    for name in ("images", "classes"):
        assert result[name] == expected[name]
    assert (result["runs"], result["split"], result["crops"]) == ([str(run) for run in runs], "test[:50]", 1)


def never(batches):
    raise AssertionError("nothing is computed before all runs are checked")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"source": "mnist"}, "of the same source; Received: 'digits' in .*a' and 'mnist' in .*other'"),
        ({"classes": [*DIGITS[:9], "ten"]}, "of the same classes"),
        ({"test_split": "test[:40]"}, r"of the same test split; Received: 'test\[:50\]' in .* and 'test\[:40\]' in"),
    ],
)
def test_runs_of_different_images_are_refused(runs, tmp_path, data_dir, other, message):
    folder = save_run(tmp_path / "other", data_dir, model=False, **{"test_split": "test[:50]", **other})
    with pytest.raises(ValueError, match="trained model"):
        evaluate([runs[0], folder], track=never)
    (folder / "best.keras").touch()
    for call in (lambda: evaluate([runs[0], folder], track=never), lambda: compare(runs[0], folder)):
        with pytest.raises(ValueError, match=message):
            call()


def test_no_run_and_other_crops_are_refused(runs):
    with pytest.raises(ValueError, match="at least one run"):
        evaluate([])
    with pytest.raises(ValueError, match="crops to be one of 1, 10, 144"):
        list(evaluations(runs, crops=(1, 12), track=never))


def test_a_library_that_metrics_alone_need_is_missed_before_anything_is_computed(runs, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else find_spec(name))
    for call in (lambda: evaluate(runs, track=never), lambda: compare(*runs, track=never)):
        with pytest.raises(MissingExtraError, match=r"the extra \[train\].* without scipy"):
            call()

"""Searches as a whole: their arguments, how they resume, and users' own datasets."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tuning
from inception_v1 import Spec
from tests.helpers.searches import KEPT, outcomes
from tuning import Budget
from tuning.search_folder import read_search

pytestmark = pytest.mark.usefixtures("few_blocks")


def test_what_ended_before_ctrl_c_is_reported(search, simulated):
    simulated.errors = {4: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        search(tuner="random")
    assert simulated.reported == [4]
    assert [trial.status for trial in search(tuner="random").trials] == ["COMPLETED"] * 8
    assert simulated.reported == [4, 8]


def test_a_full_disk_ends_the_search_at_once(search, simulated):
    simulated.errors = {3: OSError(28, "No space left on device")}
    with pytest.raises(OSError, match="No space left"):
        search(tuner="random")
    assert simulated.reported == [3]
    assert outcomes(search(tuner="random")) == outcomes(search("whole", tuner="random"))


def test_a_search_resumes_with_more_trials(search, simulated):
    short = search(tuner="random", trials=5)
    assert outcomes(search(tuner="random", trials=12))[:5] == outcomes(short)
    assert len(simulated.calls) == 12
    assert outcomes(search(tuner="random", trials=12)) == outcomes(read_search(simulated.calls[0][0].parents[2]))
    assert len(simulated.calls) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "branch"}, "Did you mean 'branches'?"),
        ({"tuner": "bayes"}, "Did you mean 'bayesian'?"),
        ({"trials": 0}, "trials to be 1 or more; Received: trials=0"),
        ({"trials": None}, "a number of trials with tuner 'bayesian'"),
        ({"max_failures": 0}, "max_failures to be 1 or more"),
        ({"patience": 0}, "patience to be 1 or more"),
        ({"save_every": "often"}, "save_every to be a time"),
        ({"strategy": "multiworker"}, "strategy to be one of 'default', 'mirrored', 'tpu'"),
        (
            {"objective": "val_accuracy"},
            "'val_main_accuracy', 'val_main_top5_accuracy', 'val_loss', 'accuracy_per_mac'",
        ),
        ({"objective": "val_aux1_accuracy"}, "objective to be one of"),  # the network has no such head
        ({"budget": Budget(max_macs=1000.0)}, "its smallest network has"),
        ({"datasets": (1, 2)}, "Expected a network"),
    ],
)
def test_bad_input_is_refused_before_anything_is_done(changes, message, search, simulated, tmp_path):
    with pytest.raises(ValueError, match="Expected") as error:
        search(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not simulated.calls
    assert not (tmp_path / "search").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_script_searches_on_its_own_datasets(tmp_path, recipe):
    start = Spec("plain", input_shape=(32, 32, 1), classes=3, aux=False, width_multiplier=0.2)
    images = np.random.default_rng(0).normal(size=(20, 32, 32, 1)).astype("float32")
    labels = np.arange(20) % 3
    ds = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8, drop_remainder=True)
    common = {"recipe": dataclasses.replace(recipe, epochs=2), "network": start, "tuner": "random", "budget": KEPT}
    found = tuning.search(tmp_path / "own", trials=2, datasets=(ds, ds), **common)
    assert [trial.status for trial in found.trials] == ["COMPLETED"] * 2, found.trials[0].message
    assert [trial.epochs for trial in found.trials] == [2, 2]
    model = keras.saving.load_model(tmp_path / "own/trials/trial_1/run/best.keras", compile=False)
    scores = model.evaluate(ds, return_dict=True, verbose=0) if model.compile("sgd") is None else {}
    assert scores["main_accuracy"] == pytest.approx(found.trials[1].score)
    for bad, message in [
        ((ds, ds.repeat()), "Expected finite datasets"),
        ((ds, ds.map(lambda image, label: image)), "Expected datasets of"),
        ((ds.map(lambda image, label: (image[:, :16], label)), ds), "Expected datasets of"),
    ]:
        with pytest.raises(ValueError, match=message):
            tuning.search(tmp_path / "bad", trials=2, datasets=bad, **common)
    assert not (tmp_path / "bad").exists()

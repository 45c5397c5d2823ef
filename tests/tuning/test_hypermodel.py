"""GoogLeNet's search spaces under a tuner of the user's own."""

import dataclasses

import keras_tuner as kt
import numpy as np
import pytest

import tuning
from inception_v1 import Spec, cost
from tests.helpers.searches import KEPT
from training.presets import PRESETS
from tuning import Space

pytestmark = pytest.mark.usefixtures("few_blocks")


def test_a_users_own_tuner_builds_networks_in_the_budget(tmp_path):
    """With Keras Tuner's own random search; both trials train alike where their values are alike."""
    start = Spec("plain", input_shape=(32, 32, 1), classes=10, aux=False, width_multiplier=0.2)
    space = Space("branches", start, dataclasses.replace(PRESETS["digits"], epochs=1), budget=KEPT)
    hypermodel = tuning.GoogLeNetHyperModel(space, steps_per_epoch=2)
    images = np.random.default_rng(0).normal(size=(16, 32, 32, 1)).astype("float32")
    labels = np.arange(16) % 10
    own = kt.RandomSearch(
        hypermodel, kt.Objective("val_main_accuracy", "max"), max_trials=2, seed=1, directory=tmp_path, overwrite=True
    )
    own.search(images, labels, validation_data=(images, labels), epochs=1, batch_size=8, verbose=0)
    trials = own.oracle.get_best_trials(2)
    assert [trial.status for trial in trials] == ["COMPLETED"] * 2
    for trial in trials:
        model = hypermodel.build(trial.hyperparameters)
        assert abs(cost(model).without_aux().macs / space.reference[1] - 1) <= 0.05
    first, second = (hypermodel.build(trials[0].hyperparameters) for _ in range(2))
    for model in (first, second):
        hypermodel.fit(trials[0].hyperparameters, model, images, labels, batch_size=8, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights()))

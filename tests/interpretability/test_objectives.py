"""Objectives, against values and gradients that Lucid computes of the same activations."""

import inspect

import keras
import numpy as np
import pytest

from inception_v1.errors import UserError
from interpretability import objectives
from interpretability.gradients import value_and_gradient
from interpretability.network import FeatureActivations
from interpretability.objectives import Need
from tests.oracles import lucid

pytestmark = pytest.mark.every_backend
LAYERS = lucid.layers()
OBJECTIVES = lucid.objectives(objectives)
OF_LUCID = {  # `__all__` of its module, so to speak
    *("neuron", "channel", "direction", "direction_neuron", "tensor_direction", "deepdream", "total_variation"),
    *("L1", "L2", "blur_input_each_step", "blur_alpha_each_step", "channel_interpolate"),
    *("penalize_boundary_complexity", "alignment", "diversity", "input_diff", "class_logit"),
    "dot_compare",  # of its recipes
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_and_gradients_are_lucids(name):
    def function(network, arrays):
        activations = FeatureActivations(dict(zip(LAYERS, arrays, strict=True)), lucid.LABELS)
        return OBJECTIVES[name](activations), ()

    inputs = keras.Input((1,))
    value, _, gradients = value_and_gradient(function, keras.Model(inputs, inputs))(list(LAYERS.values()))
    stored = lucid.case(f"objective {name}")
    expected = stored.pop("value")
    np.testing.assert_allclose(np.asarray(value), expected, rtol=1e-5, atol=1e-5)
    for layer, found in zip(LAYERS, gradients, strict=True):
        np.testing.assert_allclose(
            np.asarray(found), stored.get(layer, np.zeros_like(found)), rtol=1e-5, atol=1e-5, err_msg=layer
        )


def test_every_objective_of_lucid_is_there_and_compared():
    own = {
        name
        for name, one in vars(objectives).items()
        if inspect.isfunction(one) and one.__module__ == objectives.__name__
    }
    assert {name for name in own if not name.startswith("_")} == OF_LUCID | {
        "channels",
        "directions",
        "activation_difference",
        "as_objective",
    }
    assert {name for name in OF_LUCID if not any(case.startswith(name) for case in OBJECTIVES)} == set()


def test_an_objective_of_several_channels_is_the_sum_over_the_images():
    numbers = [4, 0, 7]
    alone = [objectives.channel("maps", number, batch=i) for i, number in enumerate(numbers)]
    activations = FeatureActivations(LAYERS)
    expected = float(sum(alone)(activations))
    assert float(objectives.channels("maps", numbers)(activations)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("center", [False, True])
def test_an_objective_of_several_directions_is_the_sum_over_the_images(center):
    vectors = np.random.default_rng(0).normal(0, 1, (3, 8)).astype("float32")
    one = objectives.direction_neuron if center else objectives.direction
    alone = [one("maps", vector, cossim_pow=2, batch=i) for i, vector in enumerate(vectors)]
    activations = FeatureActivations(LAYERS)
    expected = float(sum(alone)(activations))
    assert float(objectives.directions("maps", vectors, 2, center)(activations)) == pytest.approx(expected, rel=1e-5)


def test_the_difference_of_activations_is_the_mean_of_its_absolute_values():
    maps = LAYERS["maps"]
    found = float(objectives.activation_difference("maps", 2)(FeatureActivations(LAYERS)))
    assert found == pytest.approx(np.abs(maps[0] - maps[2]).mean(), rel=1e-5)


def test_places_that_nothing_activates_have_finite_gradients():
    def function(network, arrays):
        cosine = objectives.direction("maps", np.ones(8), cossim_pow=2)
        return cosine(FeatureActivations({"maps": arrays[0]})), ()

    inputs = keras.Input((1,))
    compiled = value_and_gradient(function, keras.Model(inputs, inputs))
    assert np.isfinite(np.asarray(compiled([np.zeros((1, 2, 2, 8), "float32")])[2][0])).all()


def test_arithmetic_keeps_what_each_term_needs():
    total = 2 - objectives.channel("maps", 3) * "logits:1" + objectives.class_logit("logits", "f")
    assert total.needs == (Need("maps", (3,)), Need("logits", (1,)), Need("logits", label="f"))
    assert "maps:3" in total.name


@pytest.mark.parametrize("text", ["inception_4d", "inception_4d:", "a:b", 3, None])
def test_other_texts_are_refused(text):
    with pytest.raises(UserError, match=r"Expected an objective, or a text such as 'inception_4d:12'"):
        objectives.as_objective(text)


def test_other_operands_and_shapes_are_refused():
    with pytest.raises(UserError, match="Expected an objective or a number"):
        objectives.channel("maps", 1) + None
    with pytest.raises(UserError, match=r"Expected a tensor \(height, width, channels\)"):
        objectives.tensor_direction("maps", np.zeros(3))

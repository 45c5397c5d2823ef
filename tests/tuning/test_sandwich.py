"""The sandwich rule: which networks a step trains, what they learn, and what of the widest network stays its own."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_v1 import GoogLeNet, Spec, cost
from training.recipe import Recipe
from tuning import Budget
from tuning.sandwich import Sandwich, make_sandwich, vector, widest
from tuning.sliced_network import SlicedNetwork
from tuning.space import Space

pytestmark = pytest.mark.usefixtures("few_blocks")

START = Spec(
    "batchnorm",
    input_shape=(16, 16, 1),
    classes=3,
    aux=False,
    width_multiplier=0.2,
    dropout=0.0,
    reduction=False,
    stem="small",
)


@pytest.fixture(scope="module")
def space():
    reference = cost(START).without_aux().macs
    budget = Budget(max_macs=reference / 2)
    return Space("stages", START, Recipe(seed=3), multipliers=(0.5, 1.0), stem=True, budget=budget)


def test_all_networks_of_a_space_are_slices_of_its_widest(space):
    sandwich = make_sandwich(space, 2, 30)
    full = vector(space, space.extremes()[1])
    assert widest(space).all_stem_widths() == START.all_stem_widths()
    assert sandwich.samples.shape == (60, len(full))
    assert (sandwich.narrowest <= sandwich.samples).all()
    assert (sandwich.samples <= full).all()
    assert (sandwich.samples < full).any(axis=1).all()  # they keep the budget
    assert np.array_equal(sandwich.samples, make_sandwich(space, 2, 30).samples)
    other = dataclasses.replace(space, recipe=Recipe(seed=4))
    assert not np.array_equal(sandwich.samples, make_sandwich(other, 2, 30).samples)


def test_a_step_adds_the_gradients_of_the_slices_to_that_of_the_widest(space):
    """Against gradients of each by itself; the samples of a step follow from its number."""
    spec, sandwich = widest(space), make_sandwich(space, 1, 2)
    network = sandwich.student(spec, {"main": 1.0})
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype("float32")
    labels = np.array([0, 1, 2, 0])
    for step in (1, 2):
        alone = GoogLeNet(**spec.to_dict())
        alone.set_weights(network.get_weights())
        alone.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
        network.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
        network.optimizer.iterations.assign(step)
        before = network.get_weights()
        network.train_on_batch(images, labels)
        alone.train_on_batch(images, labels)
        slices, taught = GoogLeNet(**spec.to_dict()), GoogLeNet(**spec.to_dict())
        slices.set_weights(before)
        taught.set_weights(before)
        teacher = taught(images, training=True)["main"]
        with tf.GradientTape() as tape:
            losses = []
            for widths in (sandwich.narrowest, sandwich.samples[step % 2]):
                logits, _ = SlicedNetwork(slices)(images, tf.constant(widths))
                losses.append(-tf.reduce_mean(tf.reduce_sum(teacher * tf.nn.log_softmax(logits["main"]), 1)))
            total = tf.add_n(losses)
        gradients = tape.gradient(total, [variable.value for variable in slices.trainable_variables])
        for own, plain, gradient in zip(network.trainable_variables, alone.trainable_variables, gradients):
            np.testing.assert_allclose(own, plain - 0.5 * gradient, rtol=1e-3, atol=2e-4)
        for own, plain in zip(network.non_trainable_variables, alone.non_trainable_variables):
            np.testing.assert_allclose(own, plain, rtol=1e-4, atol=1e-5)  # statistics of the widest alone


def test_evaluation_has_no_loss_of_slices(space):
    network = Sandwich(vector(space, space.extremes()[0]), np.zeros((1, 1), "int32"), 0).student(
        widest(space), {"main": 1.0}
    )
    network.compile(run_eagerly=True)
    images, labels = np.zeros((2, 16, 16, 1), "float32"), np.zeros(2, "int64")
    plain = GoogLeNet(**widest(space).to_dict())
    plain.set_weights(network.get_weights())
    plain.compile(run_eagerly=True)
    assert network.evaluate(images, labels, verbose=0)[0] == pytest.approx(plain.evaluate(images, labels, verbose=0)[0])

import dataclasses

import keras
import numpy as np
import pytest

from inception_v1 import build_googlenet
from training.optimizer import SGD, make_optimizer, make_schedule
from training.presets import PRESETS


def test_the_learning_rate_warms_up_linearly_then_falls_to_zero():
    recipe = dataclasses.replace(PRESETS["digits"], learning_rate=0.4, epochs=10, warmup_epochs=2)
    rate = make_schedule(recipe, steps_per_epoch=5)
    assert float(rate(0)) == 0
    assert float(rate(5)) == pytest.approx(0.2)
    assert float(rate(10)) == pytest.approx(0.4)
    assert float(rate(30)) == pytest.approx(0.2)  # half of the cosine
    assert float(rate(50)) == pytest.approx(0, abs=1e-7)
    flat = make_schedule(dataclasses.replace(recipe, warmup_epochs=0), steps_per_epoch=5)
    assert float(flat(0)) == pytest.approx(0.4)


def test_other_schedules_start_after_their_warm_up():
    recipe = dataclasses.replace(PRESETS["paper"], learning_rate=0.4, epochs=10, warmup_epochs=2)
    staircase = make_schedule(recipe, steps_per_epoch=5)
    polynomial = make_schedule(dataclasses.replace(recipe, schedule="polynomial"), steps_per_epoch=5)
    for rate in (staircase, polynomial):
        assert [float(rate(step)) for step in (0, 5, 10)] == pytest.approx([0, 0.2, 0.4])
    assert [float(staircase(step)) for step in (49, 50)] == pytest.approx([0.4, 0.4 * 0.96])  # 8 epochs of 5 steps
    assert [float(polynomial(step)) for step in (30, 50)] == pytest.approx([0.4 * 0.5**0.5, 0])


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        # epoch: learning rate, from the formulas of the solver files
        ("paper", {0: 0.01, 7: 0.01, 8: 0.0096, 16: 0.0096 * 0.96, 249: 0.01 * 0.96**31}),
        ("quick", {0: 0.01, 30: 0.01 * 0.5**0.5, 45: 0.01 * 0.25**0.5, 60: 0.0}),
        ("modern", {0: 0.0, 5: 0.1, 152.5: 0.05, 300: 0.0}),
    ],
)
def test_presets_follow_their_sources(name, rates):
    rate = make_schedule(PRESETS[name], steps_per_epoch=10)
    for epoch, expected in rates.items():
        assert float(rate(round(epoch * 10))) == pytest.approx(expected, rel=1e-5, abs=1e-7), epoch


def test_the_learning_rate_is_linear_in_the_batch_size():
    recipe = dataclasses.replace(PRESETS["paper"], batch_size=256)
    assert float(make_schedule(recipe, steps_per_epoch=5)(0)) == pytest.approx(0.08)


def test_the_papers_optimizer_is_caffes():
    """Two steps against Caffe's update rule in NumPy: momentum, L2 in the gradient of kernels, biases twice as fast."""
    recipe = dataclasses.replace(PRESETS["paper"], l2=0.1, average=0.5)
    model = build_googlenet("paper", input_shape=(32, 32, 1), width_multiplier=0.1, classes=3)
    sgd = make_optimizer(recipe, steps_per_epoch=10)
    sgd.build(model.trainable_variables)
    initial = {v.path: v.numpy() for v in model.trainable_variables}
    expected = {path: (value, 0.0, None) for path, value in initial.items()}  # weight, velocity, moving average
    random = np.random.default_rng(0)
    for step in range(2):
        gradients = [random.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
        sgd.apply([keras.ops.convert_to_tensor(g) for g in gradients])
        for v, gradient in zip(model.trainable_variables, gradients, strict=True):
            weight, velocity, average = expected[v.path]
            bias = v.name == "bias"
            velocity = 0.9 * velocity + 0.01 * (2 if bias else 1) * (gradient + (0 if bias else 0.1) * weight)
            weight = weight - velocity
            momentum = min(0.5, (1 + step) / (10 + step))
            expected[v.path] = weight, velocity, weight if step == 0 else momentum * average + (1 - momentum) * weight
    averages = sgd.averages()
    for v in model.trainable_variables:
        np.testing.assert_allclose(v.numpy(), expected[v.path][0], atol=1e-6, err_msg=v.path)
        np.testing.assert_allclose(averages[v.path].numpy(), expected[v.path][2], atol=1e-6, err_msg=v.path)


def test_decoupled_decay_is_of_kernels_only():
    recipe = dataclasses.replace(PRESETS["digits"], weight_decay=0.5, momentum=0.0, warmup_epochs=0, learning_rate=0.1)
    model = build_googlenet("batchnorm", input_shape=(32, 32, 1), width_multiplier=0.1, classes=3)
    sgd = make_optimizer(recipe, steps_per_epoch=10)
    sgd.build(model.trainable_variables)
    before = {v.path: v.numpy().copy() for v in model.trainable_variables}
    sgd.apply([v * 0.0 for v in model.trainable_variables])
    for v in model.trainable_variables:
        factor = 1 - 0.1 * 0.5 if v.name == "kernel" else 1
        assert v.numpy() == pytest.approx(before[v.path] * factor, rel=1e-5), v.path


def test_the_optimizer_is_the_same_after_its_config():
    warmed_up = dataclasses.replace(PRESETS["paper"], warmup_epochs=2)
    for recipe in (PRESETS["paper"], PRESETS["modern"], warmed_up):
        sgd = make_optimizer(recipe, steps_per_epoch=10)
        restored = keras.optimizers.deserialize(keras.optimizers.serialize(sgd))
        assert restored.get_config() == sgd.get_config()
        for name in ("l2", "decay", "factors", "average"):
            assert getattr(restored, name) == getattr(sgd, name)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_that_of_keras(nesterov):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=7).astype("float32"), rng.normal(size=(5, 7)).astype("float32")
    ours, keras_own = (
        take_steps(kind(0.1, momentum=0.9, nesterov=nesterov), start, gradients) for kind in (SGD, keras.optimizers.SGD)
    )
    np.testing.assert_allclose(ours, keras_own, rtol=1e-6, atol=1e-6)
    assert np.abs(ours[-1] - start).max() > 0.1


def take_steps(optimizer, start, gradients):
    """The variable after each step, then the velocity after the last."""
    variable = keras.Variable(start)
    optimizer.build([variable])
    values = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        values.append(np.array(variable))
    return np.array([np.array(optimizer.momentums[0]), *values])

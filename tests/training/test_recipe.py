import dataclasses
import json

import keras
import numpy as np
import pytest

from inception_v1 import build_googlenet
from training import recipe as recipes
from training.recipe import PRESETS, Recipe


@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_a_network(name):
    recipe = recipes.preset(name)
    spec = recipes.network(recipe, channels=1, classes=10)
    assert spec.input_shape == (recipe.image_size, recipe.image_size, 1)
    assert (spec.variant, spec.stem, spec.classes) == (recipe.variant, recipe.stem, 10)


def test_a_recipe_survives_json(tmp_path):
    path = tmp_path / "mine.json"
    mine = dataclasses.replace(PRESETS["fashion"], learning_rate=0.3, train_split="train[:10]")
    path.write_text(json.dumps(dataclasses.asdict(mine)))
    assert recipes.preset(str(path)) == mine


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs.*above zero; Received: epochs=0"),
        ({"batch_size": -1}, "batch_size"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"label_smoothing": 1.0}, "label_smoothing.*below 1"),
        ({"weight_decay": -1e-4}, "weight_decay.*zero or more"),
        ({"validation_fraction": 0.0}, "validation_fraction"),
        ({"average": 1.0}, "average.*or None"),
        ({"erase": 1.5}, "erase.*from 0 to 1"),
        ({"schedule": "sine"}, "schedule to be one of 'cosine'"),
        ({"precision": "float8"}, "precision to be one of 'float32'"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


def test_unknown_recipes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'digits', 'fashion'.*'digitz'.*mean 'digits'"):
        recipes.preset("digitz")
    other = tmp_path / "other.json"
    other.write_text('{"speed": 3}')
    for path in (tmp_path / "absent.json", other):
        with pytest.raises(ValueError, match=f"recipe in '{path}'"):
            recipes.preset(str(path))


def test_a_source_gets_its_own_recipe_or_the_papers_augmentation():
    assert recipes.for_source("digits") == PRESETS["digits"]
    assert recipes.for_source("folder:x") == Recipe(source="folder:x", paper_augment=True)


def test_schedule_warms_up_linearly_then_falls_to_zero():
    recipe = dataclasses.replace(PRESETS["digits"], learning_rate=0.4, epochs=10, warmup_epochs=2)
    rate = recipes.schedule(recipe, steps_per_epoch=5)
    assert float(rate(0)) == 0
    assert float(rate(5)) == pytest.approx(0.2)
    assert float(rate(10)) == pytest.approx(0.4)
    assert float(rate(30)) == pytest.approx(0.2)  # half of the cosine
    assert float(rate(50)) == pytest.approx(0, abs=1e-7)
    flat = recipes.schedule(dataclasses.replace(recipe, warmup_epochs=0), steps_per_epoch=5)
    assert float(flat(0)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        # epoch: rate, from the solver files' formulas
        ("paper", {0: 0.01, 7: 0.01, 8: 0.0096, 16: 0.0096 * 0.96, 249: 0.01 * 0.96**31}),
        ("quick", {0: 0.01, 30: 0.01 * 0.5**0.5, 45: 0.01 * 0.25**0.5, 60: 0.0}),
        ("modern", {0: 0.0, 5: 0.1, 152.5: 0.05, 300: 0.0}),
    ],
)
def test_presets_follow_their_sources(name, rates):
    rate = recipes.schedule(PRESETS[name], steps_per_epoch=10)
    for epoch, expected in rates.items():
        assert float(rate(round(epoch * 10))) == pytest.approx(expected, rel=1e-5, abs=1e-7), epoch


def test_the_rate_is_linear_in_the_batch_size():
    recipe = dataclasses.replace(PRESETS["paper"], batch_size=256)
    assert float(recipes.schedule(recipe, steps_per_epoch=5)(0)) == pytest.approx(0.08)


def test_the_papers_optimizer_is_caffes():
    """Two steps against Caffe's update rule in NumPy: momentum, L2 in the gradient of kernels, biases twice as fast."""
    recipe = dataclasses.replace(PRESETS["paper"], l2=0.1, average=0.5)
    model = build_googlenet("paper", input_shape=(32, 32, 1), width_multiplier=0.1, classes=3)
    sgd = recipes.optimizer(recipe, steps_per_epoch=10)
    sgd.build(model.trainable_variables)
    chosen = {v.path: v.numpy() for v in model.trainable_variables}
    expected = {path: (value, 0.0, None) for path, value in chosen.items()}  # weight, velocity, average
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
    sgd = recipes.optimizer(recipe, steps_per_epoch=10)
    sgd.build(model.trainable_variables)
    before = {v.path: v.numpy().copy() for v in model.trainable_variables}
    sgd.apply([v * 0.0 for v in model.trainable_variables])
    for v in model.trainable_variables:
        factor = 1 - 0.1 * 0.5 if v.name == "kernel" else 1
        assert v.numpy() == pytest.approx(before[v.path] * factor, rel=1e-5), v.path


def test_the_optimizer_survives_its_config():
    for name in ("paper", "modern"):
        sgd = recipes.optimizer(PRESETS[name], steps_per_epoch=10)
        again = keras.optimizers.deserialize(keras.optimizers.serialize(sgd))
        assert again.get_config() == sgd.get_config()
        assert (again.l2, again.decay, again.rates, again.average) == (sgd.l2, sgd.decay, sgd.rates, sgd.average)

import dataclasses
import json

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


def test_only_kernels_decay():
    recipe = dataclasses.replace(PRESETS["digits"], weight_decay=0.5, momentum=0.0, warmup_epochs=0, learning_rate=0.1)
    model = build_googlenet("batchnorm", input_shape=(32, 32, 1), width_multiplier=0.1, classes=3)
    sgd = recipes.optimizer(recipe, model, steps_per_epoch=10)
    sgd.build(model.trainable_variables)
    before = {v.path: v.numpy().copy() for v in model.trainable_variables}
    sgd.apply([v * 0.0 for v in model.trainable_variables])
    for v in model.trainable_variables:
        factor = 1 - 0.1 * 0.5 if v.name == "kernel" else 1
        assert v.numpy() == pytest.approx(before[v.path] * factor, rel=1e-5), v.path

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from training.optimizer import make_optimizer
from training.recipe import Recipe, numeric_fields

REFUSED = (math.inf, -math.inf, math.nan, -1, True, "1", [1], 1e300)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs to be an integer from 1 to below 1,000,000,000; Received: epochs=0"),
        ({"batch_size": -1}, "batch_size"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"label_smoothing": 1.0}, "label_smoothing.*below 1"),
        ({"weight_decay": -1e-4}, "weight_decay to be a number from 0 to below 1,000,000,000; Received"),
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


@pytest.mark.parametrize("name", numeric_fields())
def test_no_numeric_field_takes_what_is_no_finite_number_of_its_range(name):
    field = numeric_fields()[name]
    for value in (*REFUSED, *([] if field.optional else [None]), *([1.5] if field.integer else [])):
        with pytest.raises(ValueError, match=f"Expected {name} to be an? .*; Received: {name}="):
            Recipe(weights="net.keras", freeze_until="3a", **{name: value})


def test_every_number_of_a_recipe_has_its_range():
    numbers = {name for name, value in vars(Recipe()).items() if isinstance(value, int | float)}
    flags = {name for name, value in vars(Recipe()).items() if isinstance(value, bool)}
    assert set(numeric_fields()) == numbers - flags | {"dropout", "average", "unfreeze_epochs"}


def _values(field):
    low, high = field.range.low, field.range.high
    if field.integer:
        return st.integers(low, high - field.range.below)
    return st.floats(low, high, exclude_min=field.range.above, exclude_max=field.range.below)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(
    st.fixed_dictionaries({name: _values(field) for name, field in numeric_fields().items()}),
    st.sampled_from(["cosine", "staircase", "polynomial"]),
)
def test_every_recipe_in_range_has_a_learning_rate_at_every_step(fields, schedule):
    recipe = Recipe(weights="net.keras", freeze_until="3a", schedule=schedule, **fields)
    rate = make_optimizer(recipe, 3)._learning_rate
    for step in (0, 1, 10**6):
        assert math.isfinite(float(rate(step)))

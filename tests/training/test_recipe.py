import dataclasses
import math

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

from inception_v1 import GoogLeNet, Spec
from training.data import sources
from training.data.pipeline import Batches
from training.optimizer import make_optimizer
from training.recipe import Recipe, numeric_fields
from training.task import complete_recipe, recipe_spec

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


def test_the_heads_have_dropout_rates_of_their_own():
    assert recipe_spec(Recipe(dropout=0.0), 1, 10).dropout == (0.0, 0.7)
    assert recipe_spec(Recipe(dropout=0.0, aux_dropout=0.0), 1, 10).dropout == (0.0, 0.0)
    network = Spec(dropout=(0.1, 0.3))
    assert recipe_spec(complete_recipe(Recipe(), network)[0], 1, 10).dropout == network.dropout


@pytest.mark.parametrize("name", numeric_fields())
def test_no_numeric_field_takes_what_is_no_finite_number_of_its_range(name):
    field = numeric_fields()[name]
    for value in (*REFUSED, *([] if field.optional else [None]), *([1.5] if field.integer else [])):
        with pytest.raises(ValueError, match=f"Expected {name} to be an? .*; Received: {name}="):
            Recipe(weights="net.keras", freeze_until="3a", **{name: value})


def test_every_number_of_a_recipe_has_its_range():
    numbers = {name for name, value in vars(Recipe()).items() if isinstance(value, int | float)}
    flags = {name for name, value in vars(Recipe()).items() if isinstance(value, bool)}
    assert set(numeric_fields()) == numbers - flags | {"dropout", "aux_dropout", "average", "unfreeze_epochs"}


def _values(field):
    low, high = field.range.low, field.range.high
    if field.optional:
        return st.none() | _values(dataclasses.replace(field, optional=False))
    if field.integer:
        return st.integers(low, high - field.range.below)
    return st.floats(low, high, exclude_min=field.range.above, exclude_max=field.range.below)


def _ends(field):
    """The smallest and the largest number that a field takes."""
    low, high = field.range.low, field.range.high
    if field.integer:
        return low, high - field.range.below
    return (
        math.nextafter(low, math.inf) if field.range.above else float(low),
        math.nextafter(high, 0) if field.range.below else float(high),
    )


NUMBERS = st.fixed_dictionaries({name: _values(field) for name, field in numeric_fields().items()})
SMALLEST, LARGEST = ({name: _ends(field)[end] for name, field in numeric_fields().items()} for end in (0, 1))


def _recipe(fields, **changes):
    return Recipe(weights="net.keras", freeze_until="3a", **fields | changes)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(NUMBERS, st.sampled_from(["cosine", "staircase", "polynomial"]))
def test_every_recipe_in_range_has_a_learning_rate_at_every_step(fields, schedule):
    rate = make_optimizer(_recipe(fields, schedule=schedule), 3)._learning_rate
    for step in (0, 1, 10**6):
        assert math.isfinite(float(rate(step)))


@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
@hypothesis.example(SMALLEST)
@hypothesis.example(LARGEST)
@hypothesis.given(NUMBERS)
def test_every_recipe_in_range_has_a_network(fields):
    """Of images of 32 pixels or more, the fewest that its stem takes."""
    spec = recipe_spec(_recipe(fields, image_size=max(32, fields["image_size"])), channels=1, classes=2)
    assert min(map(min, spec.block_widths().values())) > 0


@hypothesis.settings(max_examples=10, deadline=None, derandomize=True)
@hypothesis.example(SMALLEST)
@hypothesis.example(LARGEST)
@hypothesis.given(NUMBERS)
def test_every_recipe_in_range_updates_variables(fields):
    sgd = make_optimizer(_recipe(fields), 3)
    variables = [keras.Variable(np.ones(2, "float32"), name=name) for name in ("kernel", "bias", "gamma")]
    sgd.build(variables)
    sgd.apply([keras.ops.ones(2)] * 3)


@hypothesis.settings(max_examples=2, deadline=None, derandomize=True)
@hypothesis.example(fields=SMALLEST, size=1, paper=True)
@hypothesis.example(fields=LARGEST, size=33, paper=False)
@hypothesis.given(fields=NUMBERS, size=st.integers(1, 40), paper=st.booleans())
def test_every_recipe_in_range_has_a_finite_first_batch(data_dir, fields, size, paper):
    splits = {"train_split": "train[:5]", "validation_split": "test[:2]", "test_split": "test[:2]"}
    recipe = _recipe(fields, data_dir=data_dir, image_size=size, paper_augment=paper, **splits)
    images, labels = next(iter(Batches(sources.load(recipe).train, recipe).training()))
    assert images.shape == (min(5, recipe.batch_size), size, size, 1)
    assert np.isfinite(images).all()
    assert np.isfinite(labels).all()


def test_a_network_of_the_smallest_width_and_the_largest_dropout_computes():
    recipe = _recipe(SMALLEST, image_size=32, variant="plain", aux=False, dropout=LARGEST["dropout"])
    model = GoogLeNet(**recipe_spec(recipe, channels=1, classes=2).to_dict())
    assert np.isfinite(model(np.ones((2, 32, 32, 1)), training=True)["main"]).all()

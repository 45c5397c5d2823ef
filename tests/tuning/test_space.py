"""Samples of the spaces: their networks, their costs, and the budget that they keep."""

import dataclasses
import time

import numpy as np
import pytest

from inception_v1 import BLOCKS, Spec, cost
from inception_v1.cost import classifier_cost
from inception_v1.dependencies import channels
from training.presets import PRESETS
from tuning.budget import Budget
from tuning.space import FEW, RECIPE, SPACES, Space

START = Spec("batchnorm", input_shape=(32, 32, 1), classes=10, width_multiplier=0.5)
BUDGETS = {
    "macs kept": Budget(keep_macs=0.05),
    "macs": Budget(max_macs=6_000_000),
    "params": Budget(max_params=1_200_000),
    "both": Budget(max_params=1_400_000, keep_macs=0.2),
}


def space(name="branches", start=START, recipe=PRESETS["digits"], **changes):
    return Space(name, start, recipe, **changes)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("variant", ["batchnorm", "paper", "slim", "inception5h"])
def test_the_cost_of_a_sample_is_that_of_its_network(name, variant):
    start = Spec(variant, input_shape=(64, 97, 3), classes=7)
    sampled = space(name, start)
    for values in [sampled.default(), *sampled.sample(20, 0)]:
        counted = cost(sampled.network(values)).without_aux()
        assert sampled.cost(values) == (counted.params, counted.macs)


def test_many_networks_are_counted_at_once():
    spec = Spec(include_top=False, pooling=None)
    table = {block: type(row)(*(np.array([n, 2 * n]) for n in row)) for block, row in BLOCKS.items()}
    params, macs = classifier_cost(spec, table)
    for index, scale in enumerate((1, 2)):
        widths = {block: [scale * n for n in row] for block, row in BLOCKS.items()}
        counted = cost(dataclasses.replace(spec, widths=widths))
        assert (params[index], macs[index]) == (counted.params, counted.macs)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("multiplier", [1.0, 0.5])
def test_the_default_sample_is_the_papers_network(name, multiplier):
    start = dataclasses.replace(START, width_multiplier=multiplier)
    sampled = space(name, start, budget=Budget(keep_macs=0.01))
    assert sampled.first() == sampled.default()
    assert sampled.network(sampled.first()).block_widths() == start.block_widths()


@pytest.mark.parametrize(("name", "dimensions"), [("branches", 4), ("stages", 12), ("blocks", 54)])
def test_every_width_belongs_to_one_dimension(name, dimensions):
    sampled = space(name)
    assert len(sampled.dimensions) == dimensions
    set_by = [(block, field) for d in sampled.dimensions for block in d.blocks for field in d.convolutions]
    assert sorted(set_by) == sorted((block, field) for block, row in BLOCKS.items() for field in row._fields)
    for d in sampled.dimensions:  # each one moves the widths that it names, and no others
        low = sampled.network(sampled.default() | {d.name: d.low}).block_widths()
        moved = {
            (block, field)
            for block, row in low.items()
            for field in row._fields
            if getattr(row, field) != getattr(START.block_widths()[block], field)
        }
        assert moved <= {(block, field) for block in d.blocks for field in d.convolutions}
        assert moved or all(getattr(START.block_widths()[b], f) == 8 for b in d.blocks for f in d.convolutions)


def test_widths_are_multiples_of_eight_around_the_papers():
    sampled = space("blocks", dataclasses.replace(START, width_multiplier=1.0))
    for values in sampled.sample(200, 0):
        for block, row in sampled.network(values).block_widths().items():
            for own, paper in zip(row, BLOCKS[block]):
                assert own % 8 == 0
                assert paper / 2 - 4 <= own <= 2 * paper


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_every_sample_keeps_the_budget_and_next_to_none_is_lost(name, budget):
    sampled = space(name, budget=budget)
    found = sampled.sample(300, 1)
    assert len(found) > 200
    for values in [sampled.first(), *found]:
        counted = cost(sampled.network(values)).without_aux()
        assert counted.params <= (budget.max_params or np.inf)
        assert counted.macs <= (budget.max_macs or np.inf)
        if budget.keep_macs:
            assert abs(counted.macs / sampled.reference[1] - 1) <= budget.keep_macs
    assert len({tuple(sampled.identity(values).values()) for values in found}) > 150  # and they are not all one


def test_a_sample_in_the_budget_stays_as_it_is():
    free, bound = space(), space(budget=Budget(keep_macs=0.1))
    samples = free.sample(300, 2)
    inside = [values for values in samples if abs(free.cost(values)[1] / free.reference[1] - 1) <= 0.1]
    assert 10 < len(inside) < 200
    assert all(bound.fit_to_budget(values) == values for values in inside)


def test_scaling_keeps_the_proportions():
    sampled = space(budget=Budget(keep_macs=0.02))
    values = {"1x1": 1.6, "3x3": 1.2, "5x5": 1.0, "pool": 1.4}
    scaled = sampled.fit_to_budget(values)
    ratios = [scaled[name] / value for name, value in values.items()]
    assert max(ratios) < 1
    assert max(ratios) - min(ratios) < 1e-3


def test_samples_are_scaled_among_many_as_alone():
    """Of few samples the common factors are found by several halvings at once."""
    free, bound = space(), space(budget=Budget(keep_macs=0.02))
    alone = [bound.fit_to_budget(values) for values in free.sample(FEW + 1, 4)]
    assert bound.sample(FEW + 1, 4) == [values for values in alone if values]
    assert sum(map(bool, alone)) > FEW / 2


def test_samples_follow_from_the_seed():
    sampled = space("stages", also=RECIPE, budget=Budget(keep_macs=0.05))
    assert sampled.sample(20, 3) == sampled.sample(20, 3)
    assert sampled.sample(20, 3) != sampled.sample(20, 4)


def test_the_recipe_is_searched_too():
    recipe = dataclasses.replace(PRESETS["digits"], dropout=0.5)
    start = dataclasses.replace(START, dropout=(0.5, 0.7))
    sampled = space("branches", start, recipe, also=RECIPE, budget=Budget(keep_macs=0.05))
    assert sampled.recipe_of(sampled.default()) == dataclasses.replace(recipe, variant="batchnorm")
    found = sampled.sample(300, 0)
    assert {values["normalization"] for values in found} == {"batchnorm", "paper", "plain"}
    for values in found[:40]:
        spec, own = sampled.network(values), sampled.recipe_of(values)
        assert (spec.variant, own.variant) == (values["normalization"],) * 2
        assert spec.dropout == (values["dropout"], 0.7)
        assert spec.pixels == ("caffe" if spec.variant == "paper" else "signed")
        assert recipe.learning_rate / 4 <= own.learning_rate == values["learning_rate"] <= 4 * recipe.learning_rate
        assert recipe.weight_decay / 10 <= own.weight_decay <= 10 * recipe.weight_decay
        assert 0 <= own.aux_weight == values["aux_weight"] <= 1
        assert sampled.cost(values) == (cost(spec).without_aux().params, cost(spec).without_aux().macs)


@pytest.mark.parametrize("variant", ["plain", "batchnorm"])
def test_neighbors_differ_in_one_dimension_and_hold_whole_names(variant):
    """Among them names that are longer than the sample's own."""
    sampled = space(also=("normalization", "learning_rate"))
    values = sampled.default() | {"normalization": variant}
    found = sampled.neighbors(values, 200, 0)
    assert len(found) == 200
    assert {each["normalization"] for each in found} == {"batchnorm", "paper", "plain"}
    for each in found:
        assert sampled.network(each).variant == each["normalization"]
        assert sum(each[name] != value for name, value in values.items()) <= 1


def test_values_survive_single_precision():
    sampled = space("stages", also=RECIPE)
    for values in sampled.sample(50, 0):
        rough = {name: value if isinstance(value, str) else float(np.float32(value)) for name, value in values.items()}
        assert sampled.exact(rough) == values


def test_ten_thousand_samples_and_costs_take_a_second():
    """Far below that even on a busy machine: the bound only tells a vector from a loop."""
    sampled = space("blocks", budget=Budget(keep_macs=0.05))
    began = time.perf_counter()
    assert len(sampled.sample(10_000, 0)) > 9_000
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multipliers": (1.5, 2.0)}, "Expected multipliers from 0 to 16 around 1; Received: multipliers=(1.5, 2.0)."),
        ({"multipliers": (1.0, 1.0)}, "Expected multipliers"),
        ({"name": "branch"}, "space='branch'. Did you mean 'branches'?"),
        ({"also": ("lerning_rate",)}, "Did you mean 'learning_rate'?"),
        ({"budget": Budget(max_macs=1e6), "grid": True}, "Expected a budget that space 'branches' can meet"),
        ({"budget": Budget(max_params=6e5, keep_macs=0.05)}, "Received: max_params=600000, keep_macs=0.05."),
        ({"also": ("aux_weight",), "start": dataclasses.replace(START, aux=False)}, "Expected auxiliary heads"),
        ({"also": ("weight_decay",), "recipe": PRESETS["paper"]}, "weight_decay above zero, to search around it"),
        (
            {"also": ("dropout", "dropout")},
            "Expected each dimension of the recipe once; Received: also=('dropout', 'dr",
        ),
        ({"start": Spec(aux=False, input_shape=(None, None, 3))}, "Expected a fixed height and width"),
    ],
)
def test_a_bad_space_is_refused(changes, message):
    with pytest.raises(ValueError, match="Expected") as error:
        space(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize("bounds", [{"max_params": 0}, {"max_macs": -1.0}, {"keep_macs": 0}, {"keep_macs": 1.0}])
def test_a_bad_bound_is_refused(bounds):
    with pytest.raises(ValueError, match=f"Expected {next(iter(bounds))} to be a number .*; Received"):
        Budget(**bounds)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("stem", ["small", "imagenet", "cifar"])
def test_the_stem_and_other_multipliers_reach_smaller_networks(name, stem):
    start = dataclasses.replace(START, stem=stem)
    whole = cost(start).without_aux().macs
    sampled = space(name, start, multipliers=(0.25, 1.0), stem=True, budget=Budget(max_macs=0.3 * whole))
    smallest, largest = map(sampled.network, sampled.extremes())
    assert largest.block_widths() == start.block_widths()
    assert largest.all_stem_widths() == start.all_stem_widths()
    assert all(width <= max(8, own // 3) for width, own in zip(smallest.all_stem_widths(), start.all_stem_widths()))
    found = sampled.sample(50, 0)
    assert len({sampled.network(values).all_stem_widths() for values in found}) > 1
    for values in found:
        spec = sampled.network(values)
        assert sampled.cost(values)[1] == cost(spec).without_aux().macs <= 0.3 * whole
        assert {conv: int(width) for conv, width in sampled.widths(values).items()} == channels(spec)
        again = sampled.exact({conv: float(np.float32(value)) for conv, value in values.items()})
        assert again == values
    ends = [point for d in sampled.dimensions if d.spread == "log" for point in (d.grid()[0], d.grid()[-1])]
    assert set(ends) == {0.25, 1.0}


def test_samples_that_differ_in_the_stem_alone_are_two():
    sampled = space(stem=True)
    one, other, same = (sampled.identity(sampled.default() | {"stem": stem}) for stem in (1.001, 2.0, 1.002))
    assert one == same  # after rounding
    assert one != other


def test_no_sample_is_wider_than_the_widest_where_the_start_has_other_widths_than_multiples_of_8():
    widths = {block: type(row)(*(width - 2 for width in row)) for block, row in BLOCKS.items()}
    sampled = space("branches", Spec("batchnorm", input_shape=(32, 32, 1), widths=widths), multipliers=(0.25, 1.0))
    narrowest, widest = (np.array(list(sampled.widths(values).values())) for values in sampled.extremes())
    for values in sampled.sample(100, 0):
        found = np.array(list(sampled.widths(values).values()))
        assert np.all((narrowest <= found) & (found <= widest))


@pytest.mark.parametrize("name", SPACES)
def test_an_impossible_budget_says_what_the_space_can_reach(name):
    free = space(name)
    smallest = cost(free.network({d.name: d.low for d in free.dimensions})).without_aux()
    start = cost(START).without_aux()
    with pytest.raises(ValueError, match="Expected a budget") as error:
        space(name, budget=Budget(max_macs=smallest.macs - 1))
    assert str(error.value) == (
        f"Expected a budget that space {name!r} can meet: its smallest network has {smallest.params:,} parameters "
        f"and {smallest.macs:,} multiply-accumulates, that of the start {start.params:,} parameters "
        f"and {start.macs:,} multiply-accumulates; "
        f"Received: max_macs={smallest.macs - 1:g}."
    )
    assert space(name, budget=Budget(max_macs=1.2 * smallest.macs)).sample(50, 0)

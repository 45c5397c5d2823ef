"""Sums of a latency table, its file, and the budget of milliseconds that samples of a space keep by it."""

import dataclasses
import json
import time

import numpy as np
import pytest

from inception_v1 import BLOCKS, Spec
from inception_v1.cost import cost
from tests.helpers.latency import made_table, seconds_of
from training.presets import PRESETS
from tuning.budget import Budget
from tuning.latency_measurement import random_widths
from tuning.latency_table import Check, operations, read_latency_table
from tuning.space import SPACES, Space

START = Spec("batchnorm", input_shape=(32, 32, 1), classes=10, width_multiplier=0.5)
TABLE = made_table(START)


def space(name="branches", latency=TABLE, **changes):
    return Space(name, START, PRESETS["digits"], latency=latency, **changes)


@pytest.mark.parametrize("variant", ["batchnorm", "paper", "slim", "cifar"])
def test_operations_are_those_that_multiply_accumulates_count(variant):
    """Of convolutions and the classifier; LRN, pools and concatenations are operations too."""
    spec = Spec(variant, input_shape=(64, 97, 3), classes=7)
    found = list(operations(spec))
    counted = 0
    for operation in found:
        kernel, _, rest = operation.kind.partition("x")
        if "convolution" in rest:
            height, width = map(int, operation.kind.rpartition(" ")[2].split("x"))
            counted += int(kernel) ** 2 * operation.inputs * operation.outputs * height * width
        counted += operation.inputs * operation.outputs if operation.kind == "classifier" else 0
    assert counted == cost(spec).without_aux().macs
    assert sum("concatenation" in operation.kind for operation in found) == len(BLOCKS)
    assert any("response" in operation.kind for operation in found) == (variant == "paper")


def test_the_sum_is_that_of_the_operations():
    for widths in random_widths(START, 9, 1):
        spec = dataclasses.replace(START, widths=widths)
        wanted = 1e-4 + 2 * sum(map(seconds_of, operations(spec)))
        assert TABLE.seconds(spec) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_many_samples_are_summed_at_once(name):
    sampled = space(name)
    samples = sampled.sample(5, 0)
    columns = {key: np.array([values[key] for values in samples]) for key in samples[0]}
    alone = [sampled.seconds(values) for values in samples]
    assert sampled.costs(columns).seconds.tolist() == pytest.approx(alone)
    assert len(set(alone)) == 5


def test_a_table_returns_from_its_file(tmp_path):
    table = dataclasses.replace(TABLE, checks=(Check(0.002, 0.0021), Check(0.004, 0.0038)))
    table.write(tmp_path / "latency.json")
    assert read_latency_table(tmp_path / "latency.json") == table
    assert table.errors == pytest.approx([0.05, -0.05])


@pytest.mark.parametrize(
    "change",
    [
        {"rows": {"classifier": {"inputs": [8], "outputs": [10], "seconds": [-1.0]}}},
        {"rows": {"classifier": {"inputs": [8, 16], "outputs": [10], "seconds": [1.0]}}},
        {"rows": {"classifier": {"inputs": [8], "outputs": ["ten"], "seconds": [1.0]}}},
        {"network": None},
        {"surprise": 1},
    ],
)
def test_a_file_that_holds_no_table_is_refused(change, tmp_path):
    file = tmp_path / "latency.json"
    TABLE.write(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match="Expected a latency table, as googlenet latency writes it; Received"):
        read_latency_table(file)
    with pytest.raises(ValueError, match=r"Expected a latency table; Received: .*No such file"):
        read_latency_table(tmp_path / "none.json")


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_samples_keep_a_budget_of_milliseconds(name, factor):
    start = 1000 * TABLE.seconds(START)
    sampled = space(name, budget=Budget(max_latency_ms=factor * start))
    found = sampled.sample(300, 1)
    assert len(found) > 200
    milliseconds = [1000 * sampled.seconds(values) for values in found]
    assert max(milliseconds) <= factor * start
    assert 1000 * sampled.seconds(sampled.first()) <= factor * start
    assert np.median(milliseconds) > 0.9 * factor * start if factor < 1 else max(milliseconds) > start


def test_ten_thousand_samples_and_their_latencies_take_a_second():
    """Far below that even on a busy machine: the bound only tells a vector from a loop."""
    sampled = space("blocks", budget=Budget(max_latency_ms=1000 * TABLE.seconds(START)))
    began = time.perf_counter()
    assert len(sampled.sample(10_000, 0)) > 9_000
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency": None, "budget": Budget(max_latency_ms=5)}, "Received: max_latency_ms=5 without one."),
        ({"latency": made_table(dataclasses.replace(START, classes=11))}, "a network with classes 11, not 10."),
        ({"latency": made_table(dataclasses.replace(START, widths={"3a": (8,) * 6}))}, "a network with other widths."),
        ({"latency": dataclasses.replace(TABLE, rows={})}, "a network with no 7x7/2 convolution, 16x16."),
        ({"also": ("normalization",)}, "Expected no 'normalization' among the dimensions with a latency table"),
        ({"budget": Budget(max_latency_ms=0.1)}, "Received: max_latency_ms=0.1."),
    ],
)
def test_a_bad_space_is_refused(changes, message):
    with pytest.raises(ValueError, match="Expected") as error:
        space(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize("name", SPACES)
def test_an_impossible_budget_says_how_fast_the_space_can_be(name):
    free = space(name)
    fastest = 1000 * free.seconds({d.name: d.low for d in free.dimensions})
    with pytest.raises(ValueError, match="Expected a budget") as error:
        space(name, budget=Budget(max_latency_ms=0.9 * fastest))
    assert f"and takes {fastest:.3g} ms, that of the start " in str(error.value)
    assert f"and takes {1000 * TABLE.seconds(START):.3g} ms; Received" in str(error.value)
    space(name, budget=Budget(max_latency_ms=1.1 * fastest))

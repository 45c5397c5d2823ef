"""Measuring a latency table: the graphs that are timed, their profiles, and one real measurement of a tiny network."""

import dataclasses

import numpy as np
import onnxruntime
import pytest

import googlenet
from inception_v1 import Spec
from inception_v1.atomic_files import write_json
from tuning import Budget, latency_measurement
from tuning.latency_measurement import (
    CALLS,
    export_random_network,
    fast_mean,
    layer_of,
    measure_latency,
    probe_widths,
    profiled_operations,
    random_widths,
    with_widths,
)
from tuning.latency_table import operations, read_latency_table
from tuning.space import SPACES, Space

pytestmark = pytest.mark.usefixtures("few_blocks")

TINY = Spec("plain", input_shape=(32, 32, 1), classes=3, aux=False, stem="small", width_multiplier=0.2)


@pytest.fixture(scope="module")
def export():
    return export_random_network(TINY)


def shapes(model):
    """What each node does, of which layer, and with kernels of which shapes; some have numbers for names."""
    tensors = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    layers = [operation.layer for operation in operations(TINY)]
    return sorted(
        (node.op_type, layer_of(node.name, layers) or "", [tensors[name] for name in node.input if name in tensors])
        for node in model.graph.node
    )


def test_a_graph_with_other_widths_is_the_export_of_that_network(export):
    widths = probe_widths(TINY, 3, 0)[2]
    assert shapes(with_widths(export, TINY, widths)) == shapes(
        export_random_network(dataclasses.replace(TINY, widths=widths))
    )
    assert shapes(with_widths(export, TINY, TINY.block_widths())) == shapes(export)


def test_networks_whose_last_maps_have_one_pixel_take_other_widths():
    """There the converter writes transpositions as reshapes, to numbers of channels."""
    spec = Spec("plain", input_shape=(32, 32, 1), classes=3, aux=False, width_multiplier=0.1)
    export, image = export_random_network(spec), np.zeros((2, 32, 32, 1), "float32")
    for widths in [spec.block_widths(), *probe_widths(spec, 3, 0)]:
        file = with_widths(export, spec, widths).SerializeToString()
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        assert session.run(None, {"image": image})[0].shape == (2, 3)


def test_networks_reach_from_the_narrowest_to_the_widest_of_the_spaces():
    spec = Spec("batchnorm", input_shape=(32, 32, 1), classes=10)
    narrow, wide, *others = probe_widths(spec, 24, 0)
    blocks = Space("blocks", spec, googlenet.Recipe())
    for values, end in ((narrow, "low"), (wide, "high")):
        own = {f"{block}/{field}": n for block, row in values.items() for field, n in row._asdict().items()}
        assert own == {d.name: getattr(d, end) for d in blocks.dimensions}
    first = [row["3a"].conv3 / spec.block_widths()["3a"].conv3 for row in others]
    assert min(first) < 0.75
    assert max(first) > 1.5
    checks = random_widths(spec, 2 * len(SPACES), 0)
    assert len({str(row) for row in checks}) == len(checks)
    assert probe_widths(spec, 5, 1) == probe_widths(spec, 5, 1) != probe_widths(spec, 5, 2)


def test_nodes_belong_to_the_layer_that_names_them():
    layers = [operation.layer for operation in operations(TINY)]
    for node, layer in {
        "inception_3b_5x5_reduce_relu_1/Relu:0_nchwc_kernel_time": "inception_3b_5x5_reduce",
        "inception_3b_5x5_1/convolution": "inception_3b_5x5",
        "inception_3b_1x1_relu_1/Relu": "inception_3b_1x1",
        "inception_3b_pool_1/MaxPool2d": "inception_3b_pool",
        "inception_3b_pool_proj_1/convolution": "inception_3b_pool_proj",
        "inception_3b_1/concat": "inception_3b",
        "ReorderOutput": None,
    }.items():
        assert layer_of(node, layers) == layer


def test_a_profile_is_divided_among_the_layers():
    """Nodes that onnxruntime adds count for the layer behind them, the last ones for the last layer."""
    nodes = [("a_1/convolution", 30), ("ReorderOutput", 5), ("b_1/concat", 10), ("Softmax", 7)]
    events, at = [], 0
    for call in range(2 * CALLS):
        first = 1000 * (call % CALLS == 0)  # which does not count
        began = at
        for name, microseconds in nodes:
            events.append(
                {"cat": "Node", "name": f"{name}_kernel_time", "ts": at, "dur": microseconds + first + call // CALLS}
            )
            at += microseconds + first + 10
        events.append({"cat": "Session", "name": "model_run", "ts": began, "dur": at - began - 5})
    found = profiled_operations(events, ["a", "b"])
    assert found == {"a": pytest.approx(30e-6), "b": pytest.approx(22e-6)}
    assert fast_mean([3.0, 1.0, 2.0]) == 1.0
    assert fast_mean(list(np.arange(20.0))) == 0.5


@pytest.mark.parametrize("bad", [{"batch": 0}, {"threads": 0}, {"networks": 3}, {"checks": -1}, {"turns": 0}])
def test_bad_numbers_are_refused(bad):
    with pytest.raises(ValueError, match=f"Expected {next(iter(bad))} to be . or more; Received"):
        measure_latency(TINY, **bad)


def test_a_measured_table_holds_every_operation(export, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(latency_measurement, "export_random_network", lambda spec: export)
    write_json(tmp_path / "spec.json", TINY.to_dict())
    flags = [
        "--threads",
        "1",
        "--networks",
        "5",
        "--checks",
        "3",
        "--batch",
        "2",
        "--out",
        str(tmp_path / "latency.json"),
    ]
    assert googlenet.main(["latency", str(tmp_path / "spec.json"), *flags]) == 0
    assert "largest difference" in capsys.readouterr().out
    table = read_latency_table(tmp_path / "latency.json")
    per_kind = {}
    for operation in operations(TINY):
        per_kind[operation.kind] = per_kind.get(operation.kind, 0) + 1
    assert {kind: len(rows.seconds) for kind, rows in table.rows.items()} == {k: 5 * n for k, n in per_kind.items()}
    assert (table.batch, table.about["threads"], len(table.checks)) == (2, 1, 3)
    assert all(check.measured > 0 for check in table.checks)
    free = Space("branches", TINY, googlenet.Recipe(), latency=table)
    assert free.seconds({d.name: d.high for d in free.dimensions}) > free.seconds(
        {d.name: d.low for d in free.dimensions}
    )
    assert Space("branches", TINY, googlenet.Recipe(), budget=Budget(max_latency_ms=1e6), latency=table).first()

"""Measures a latency table: networks of many widths as ONNX files, profiled operation by operation in onnxruntime.

Operations are timed inside of whole networks, where their inputs and kernels lie in the caches as they do in use, and
where no call of a function adds to them. All networks are the export of one whose kernels are replaced by larger and
smaller ones, so that the graph is that of `googlenet export`.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import re
import tempfile
import time
import typing
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inception_v1.extras import extra
from inception_v1.spec import Spec, Widths, round_width
from training.environment import cpu
from training.errors import UserError
from training.recipe import Recipe
from tuning.latency_table import Check, LatencyTable, Operation, Rows, operations, structure
from tuning.space import GRID, SPACES, Space

with extra("export"):
    import onnx
    import onnxruntime
    from onnx import numpy_helper

NETWORKS, CHECKS = 24, 20  # that rows come from, and that are timed as a whole
GROUP = 4  # networks in memory at a time, which take turns
TURNS, CALLS = 12, 4  # of each network; calls in a turn, of which the first warms the caches up
FASTEST = 0.1  # of the calls, which count: slower ones waited for other processes
SPREAD = (0.6, 1 / 0.6)  # of the factor of a whole network, and of each width


class _Timed(NamedTuple):
    """A network that was timed.

    Attributes:
        widths: of its blocks.
        seconds: of a call.
        operations: seconds of each by layer; empty where they were not profiled.
    """

    widths: dict[str, Widths]
    seconds: float
    operations: dict[str, float]


def measure_latency(
    spec: Spec,
    *,
    batch: int = 1,
    threads: int | None = None,
    networks: int = NETWORKS,
    checks: int = CHECKS,
    turns: int = TURNS,
    seed: int = 0,
    progress: Callable[[Iterable[int], int, str], Iterable[int]] = lambda groups, count, title: groups,
) -> LatencyTable:
    """Measures a table for all networks that differ from `spec` in the widths of their blocks alone.

    Args:
        spec: the network; height and width are equal.
        batch: images in a call.
        threads: of onnxruntime; None for as many as it takes by itself.
        networks: that the rows of the table come from, 4 or more.
        checks: random networks of the search spaces, timed as a whole, that tell how far off the sums are.
        turns: of each network, with some calls in each.
        seed: of the networks' widths.
        progress: wraps the groups of networks that are timed, given their number and a title.

    Raises:
        UserError: numbers out of range, or a network that cannot be exported (see `ExportModel`).
    """
    _check(batch=(batch, 1), threads=(threads, 1), networks=(networks, 4), checks=(checks, 0), turns=(turns, 1))
    wanted = [(widths, True) for widths in probe_widths(spec, networks, seed)]
    wanted += [(widths, False) for widths in random_widths(spec, checks, seed + 1)]
    export = export_random_network(spec)
    order = np.random.default_rng(seed).permutation(len(wanted))  # a load that drifts is the same for both kinds
    timed: list[_Timed] = []
    starts = range(0, len(order), GROUP)
    for start in progress(starts, len(starts), "timing networks"):
        group = [wanted[index] for index in order[start : start + GROUP]]
        timed += _time_group(spec, export, group, batch, threads, turns)
    about = {
        "runtime": f"onnxruntime {importlib.metadata.version('onnxruntime')}",
        "cpu": cpu(),
        "threads": threads,
        "date": f"{datetime.date.today()}",
    }
    return _table(spec, timed, batch, about)


def _check(**numbers: tuple[int | None, int]) -> None:
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise UserError(f"Expected {name} to be {least} or more; Received: {name}={value}.")


def export_random_network(spec: Spec) -> onnx.ModelProto:
    """The network as `googlenet export` writes it, with random weights. Biases are random too, since the converter
    removes zeros and stores equal ones once."""
    from inception_v1 import GoogLeNet
    from training.export.export_model import ExportModel
    from training.export.onnx_file import convert

    model, rng = GoogLeNet(**spec.to_dict()), np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) == 1:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    export = convert(ExportModel(model, list(map(str, range(spec.classes)))))
    _infer_channels(export)
    return export


def _infer_channels(export: onnx.ModelProto) -> None:
    """Tells reshapes that stand for transpositions, of maps of one pixel, to infer the channels, which vary here."""
    tensors = {tensor.name: tensor for tensor in export.graph.initializer}
    for node in export.graph.node:
        if node.op_type == "Reshape" and node.input[1] in tensors:
            batch, *others = numpy_helper.to_array(tensors[node.input[1]]).tolist()
            if batch == -1 and len(others) == 3 and sorted(others)[1] == 1 < max(others):
                shape = np.array([0, *(-1 if number > 1 else 1 for number in others)])  # 0: that of the input
                tensors[node.input[1]].CopyFrom(numpy_helper.from_array(shape, node.input[1]))


def probe_widths(spec: Spec, count: int, seed: int) -> list[dict[str, Widths]]:
    """Widths of the networks that rows come from: the narrowest of the spaces, the widest, and random ones between
    them, each width by a factor of its own and one of the whole network."""
    rng, own = np.random.default_rng(seed), spec.block_widths()
    numbers = np.array(list(own.values()), "float64")  # (blocks, 6)
    low, high = np.log(SPREAD)
    each, whole = (np.exp(rng.uniform(low, high, (count, *size))) for size in (numbers.shape, (1, 1)))
    factors = np.clip(each * whole, GRID[0], GRID[-1])
    factors[:1], factors[1:2] = GRID[0], GRID[-1]
    return [
        {block: Widths(*map(round_width, row)) for block, row in zip(own, factor * numbers, strict=True)}
        for factor in factors
    ]


def random_widths(spec: Spec, count: int, seed: int) -> list[dict[str, Widths]]:
    """Widths of random networks of all search spaces in turn."""
    spaces = [Space(name, spec, Recipe()) for name in SPACES]
    samples = [space.sample(count, seed) for space in spaces]
    turns = [number % len(spaces) for number in range(count)]
    return [dict(spaces[turn].network(samples[turn][n]).block_widths()) for n, turn in enumerate(turns)]


def with_widths(export: onnx.ModelProto, spec: Spec, widths: Mapping[str, Widths]) -> onnx.ModelProto:
    """The same graph with kernels for other widths, random ones where their shape differs."""
    channels = {operation.layer: (operation.inputs, operation.outputs) for operation in operations(spec, widths)}
    model, rng = onnx.ModelProto(), np.random.default_rng(0)
    model.CopyFrom(export)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        layer = layer_of(node.name, channels)
        if node.op_type not in ("Conv", "MatMul", "Gemm") or layer is None:
            continue
        for tensor in (tensors[name] for name in node.input if name in tensors):
            shape = _kernel_shape(tuple(tensor.dims), *channels[layer])
            if shape != tuple(tensor.dims):
                kernel = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype("float32")
                tensor.CopyFrom(numpy_helper.from_array(kernel, tensor.name))
    return model


def _kernel_shape(shape: tuple[int, ...], inputs: int, outputs: int) -> tuple[int, ...]:
    """That of a bias, of a dense layer's kernel or of a convolution's for so many channels."""
    return {1: (outputs,), 2: (inputs, outputs), 4: (outputs, inputs, *shape[2:])}[len(shape)]


def layer_of(node: str, layers: Mapping[str, Any]) -> str | None:
    """The layer that a node of a graph belongs to by its name; None where it belongs to none."""
    matching = [name for name in layers if re.match(rf"{name}(?![a-z0-9])", node)]
    return max(matching, key=len, default=None)


def _time_group(
    spec: Spec,
    export: onnx.ModelProto,
    group: Sequence[tuple[dict[str, Widths], bool]],
    batch: int,
    threads: int | None,
    turns: int,
) -> list[_Timed]:
    """Times networks in turns, those whose second item is true with a profile too."""
    image = (
        np.random.default_rng(0).normal(size=(batch, *typing.cast(tuple[int, ...], spec.input_shape))).astype("float32")
    )
    with tempfile.TemporaryDirectory() as folder:
        runners = [
            _Runner(with_widths(export, spec, widths), threads, Path(folder, f"{number}") if profiled else None)
            for number, (widths, profiled) in enumerate(group)
        ]
        for _ in range(turns):
            for runner in runners:
                runner.call(image)
        return [
            _Timed(widths, fast_mean(runner.seconds), runner.operations(list(operations(spec, widths))))
            for runner, (widths, _) in zip(runners, group, strict=True)
        ]


class _Runner:
    """A network in onnxruntime as it is, and a second time with a profile where there is a place for its file."""

    def __init__(self, model: onnx.ModelProto, threads: int | None, profile: Path | None) -> None:
        file = model.SerializeToString()
        # One thread is this one, to whose own time other processes add little.
        self._clock = time.thread_time if threads == 1 else time.perf_counter
        self._plain, self._profiled = _session(file, threads), _session(file, threads, profile) if profile else None
        self.seconds: list[float] = []

    def call(self, image: np.ndarray) -> None:
        for session in filter(None, (self._plain, self._profiled)):
            for call in range(CALLS):
                began = self._clock()
                session.run(None, {"image": image})
                if call and session is self._plain:
                    self.seconds.append(self._clock() - began)

    def operations(self, known: Sequence[Operation]) -> dict[str, float]:
        """Seconds of each by layer; empty without a profile."""
        if self._profiled is None:
            return {}
        events = json.loads(Path(self._profiled.end_profiling()).read_text("utf-8"))
        return profiled_operations(events, [operation.layer for operation in known])


def _session(file: bytes, threads: int | None, profile: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.enable_profiling = profile is not None
    options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def profiled_operations(events: Sequence[Mapping[str, Any]], layers: Sequence[str]) -> dict[str, float]:
    """Seconds of each layer in a profile of onnxruntime.

    A node that belongs to no layer, since onnxruntime added it for the one that follows, counts as part of that; those
    at the end as part of the last one.
    """
    names = {name: None for name in layers}
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    calls = [(event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run"]
    found: dict[str, list[float]] = defaultdict(list)
    known = {name: layer_of(name, names) for name in {event["name"] for event in nodes}}
    for number, (began, ended) in enumerate(calls):
        if number % CALLS == 0:  # the first of a turn
            continue
        own, waiting, last = dict.fromkeys(layers, 0.0), 0.0, layers[-1]
        for event in nodes:
            if began <= event["ts"] <= ended:
                waiting += event["dur"] / 1e6
                if layer := known[event["name"]]:
                    own[layer] += waiting
                    waiting, last = 0.0, layer
        own[last] += waiting
        for layer, seconds in own.items():
            found[layer].append(seconds)
    return {layer: fast_mean(seconds) for layer, seconds in found.items()}


def fast_mean(seconds: Sequence[float]) -> float:
    """The mean of the fastest calls."""
    return float(np.mean(np.sort(seconds)[: max(1, round(FASTEST * len(seconds)))]))


def _table(spec: Spec, timed: Sequence[_Timed], batch: int, about: dict[str, Any]) -> LatencyTable:
    rows: dict[str, Rows] = {}
    for network in filter(lambda network: network.operations, timed):
        for operation in operations(spec, network.widths):
            row = rows.setdefault(operation.kind, Rows([], [], []))
            row.inputs.append(int(operation.inputs))
            row.outputs.append(int(operation.outputs))
            row.seconds.append(network.operations[operation.layer])
    table = LatencyTable(structure(spec), rows, 0.0, 1.0, batch, about)
    # By the sums of the table, not of the profiles: what the rows' least squares lack of the truth, the factor has.
    probes = [(table.seconds(spec, network.widths), network.seconds) for network in timed if network.operations]
    overhead, factor = _calibration(*np.transpose(probes))
    table = dataclasses.replace(table, overhead=overhead, factor=factor)
    checks = [
        Check(network.seconds, float(table.seconds(spec, network.widths)))
        for network in timed
        if not network.operations
    ]
    return dataclasses.replace(table, checks=tuple(checks))


def _calibration(parts: np.ndarray, whole: np.ndarray) -> tuple[float, float]:
    """Seconds beside the operations, and the factor of their sum, that make whole networks: least squares of the
    relative differences."""
    terms = np.stack([np.ones_like(parts), parts], axis=1) / whole[:, None]
    found, *_ = np.linalg.lstsq(terms, np.ones_like(whole))
    return float(found[0]), float(found[1])

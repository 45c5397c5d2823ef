"""How long the operations of a network take, as a table that was measured once, and sums of it for any widths.

A measured operation is a row: what it is, at which size, from how many channels to how many. Between the rows of one
operation the time is linear in the channels that it reads, in those that it writes and in their product, which is the
work of a convolution: a + b inputs + c outputs + d inputs outputs, none of them negative.
"""

import dataclasses
import functools
import json
import math
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inception_v1.atomic_files import write_json
from inception_v1.spec import Conv, Inception, LayerSpec, MaxPool, ResponseNorm, Spec, Widths
from training.errors import UserError

# Fields of a network that decide which operations it has; networks of a space differ in their widths alone.
STRUCTURE = ("variant", "input_shape", "classes", "stem", "reduction", "width_multiplier", "stem_widths", "lrn")


class Operation(NamedTuple):
    """An operation of a network at inference.

    Attributes:
        layer: that it is or ends: a convolution has its bias and ReLU, a block is its concatenation.
        kind: kernel and stride, and height and width of the output; operations of one kind differ in channels alone.
        inputs, outputs: channels; arrays where the widths are.
    """

    layer: str
    kind: str
    inputs: Any
    outputs: Any


def operations(
    spec: Spec, widths: Mapping[str, Widths] | None = None, stem_widths: Sequence[int] | None = None
) -> Iterator[Operation]:
    """The operations of `spec.classifier()` in order.

    Args:
        spec: its height and width must be fixed.
        widths: of every block, in place of its own; each number may be an integer array with one element a network.
        stem_widths: of the stem's convolutions, likewise.
    """
    height, width, channels = spec.input_shape
    size = (typing.cast(int, height), typing.cast(int, width))
    for layer in spec.trunk(widths, stem_widths):
        if isinstance(layer, Inception):
            ends = []
            for branch in layer.branches:
                end = channels
                for inner in branch:
                    operation = _operation(spec, inner, size, end)
                    yield operation
                    end = operation.outputs
                ends.append(end)
            channels = sum(ends)
            yield Operation(layer.name, f"concatenation, {size[0]}x{size[1]}", channels, channels)
            continue
        operation = _operation(spec, layer, size, channels)
        yield operation
        channels, size = operation.outputs, _size_after(spec, layer, size)
    yield Operation("main_pool", f"global average pool, {size[0]}x{size[1]}", channels, channels)
    yield Operation("main_logits", "classifier", channels, spec.classes)


def _operation(spec: Spec, layer: LayerSpec, size: tuple[int, int], inputs: Any) -> Operation:
    height, width = _size_after(spec, layer, size)
    match layer:
        case Conv():
            kind, outputs = f"{layer.kernel}x{layer.kernel}/{layer.stride} convolution", layer.filters
        case MaxPool():
            kind, outputs = f"{layer.size}x{layer.size}/{layer.stride} max pool", inputs
        case ResponseNorm():
            kind, outputs = "local response normalization", inputs
    return Operation(layer.name, f"{kind}, {height}x{width}", inputs, outputs)


def _size_after(spec: Spec, layer: LayerSpec, size: tuple[int, int]) -> tuple[int, int]:
    height, width = (typing.cast(int, spec.out_size(layer, side)) for side in size)
    return height, width


class Rows(NamedTuple):
    """The measured operations of one kind.

    Attributes:
        inputs, outputs: channels, one number a row.
        seconds: that it took.
    """

    inputs: list[int]
    outputs: list[int]
    seconds: list[float]

    def coefficients(self) -> np.ndarray:
        """(a, b, c, d) of the equation above, by least squares of the relative differences."""
        from scipy.optimize import nnls

        inputs, outputs, seconds = (np.asarray(column, "float64") for column in self)
        terms = np.stack([np.ones_like(inputs), inputs, outputs, inputs * outputs], axis=1)
        scale = terms.max(axis=0)
        found, _ = nnls(terms / scale / seconds[:, None], np.ones(len(seconds)))
        return found / scale


class Check(NamedTuple):
    """A network that was timed as a whole: seconds, and the table's prediction."""

    measured: float
    predicted: float


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """What networks around one take for a batch on the machine that the table was measured on.

    Attributes:
        network: that it was measured around (see `structure`): up to twice its widths and down to half of them.
        rows: of each kind of operation.
        overhead, factor: a network takes `overhead + factor * (sum of its operations)`, since a profile takes time too.
        batch: images.
        about: machine, runtime and threads, for reports.
        checks: networks that were timed as a whole, none of them among those that the rows come from.
    """

    network: dict[str, Any]
    rows: dict[str, Rows]
    overhead: float
    factor: float
    batch: int
    about: dict[str, Any]
    checks: tuple[Check, ...] = ()

    @functools.cached_property
    def _coefficients(self) -> dict[str, np.ndarray]:
        return {kind: rows.coefficients() for kind, rows in self.rows.items()}

    def seconds(self, spec: Spec, widths: Mapping[str, Widths] | None = None) -> Any:
        """The sum for a network.

        Args:
            spec: of the table's structure (see `check_network`).
            widths: of every block, in place of its own; each number may be an integer array with one element a network.

        Returns:
            Seconds for a batch; an array where the widths are.
        """
        total: Any = 0.0
        for operation in operations(spec, widths):
            a, b, c, d = self._coefficients[operation.kind]
            total = total + (a + b * operation.inputs + (c + d * operation.inputs) * operation.outputs)
        return self.overhead + self.factor * total

    def check_network(self, start: Spec) -> None:
        """Raises UserError where the table was not measured around the network that a search starts from."""
        own, known = structure(start), dict(self.network)
        differ = [] if known.pop("widths", None) == own.pop("widths") else ["other widths"]
        differ += [
            f"{name} {known.get(name)!r}, not {value!r}" for name, value in own.items() if known.get(name) != value
        ]
        differ += [f"no {operation.kind}" for operation in operations(start) if operation.kind not in self.rows][:1]
        if differ:
            raise UserError(
                "Expected a latency table of the network that the search starts from; Received: one of a network with "
                f"{', '.join(differ)}."
            )

    @property
    def errors(self) -> np.ndarray:
        """Relative differences of the sums from the measured networks, `(checks,)`."""
        return np.array([check.predicted / check.measured - 1 for check in self.checks])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as JSON, whole or not at all."""
        write_json(Path(path), dataclasses.asdict(self) | {"rows": {k: r._asdict() for k, r in self.rows.items()}})


def read_latency_table(path: str | os.PathLike[str]) -> LatencyTable:
    """The table of a file. Raises UserError for one that holds none."""
    try:
        found = json.loads(Path(path).read_text("utf-8"))
        found["rows"] = {kind: Rows(**rows) for kind, rows in found["rows"].items()}
        found["checks"] = tuple(Check(*check) for check in found["checks"])
        table = LatencyTable(**found)
        if not isinstance(table.network, dict) or not all(map(_sound, table.rows.values())):
            raise ValueError("no network, or rows that are no positive numbers")
    except OSError as error:
        raise UserError(f"Expected a latency table; Received: {os.fspath(path)!r}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"Expected a latency table, as googlenet latency writes it; Received: {os.fspath(path)!r}."
        ) from None
    return table


def _sound(rows: Rows) -> bool:
    columns = [np.asarray(column, "float64") for column in rows]
    same = len({column.shape for column in columns}) == 1 and columns[0].ndim == 1 and len(columns[0]) > 0
    return same and all(math.isfinite(column.sum()) and column.min() > 0 for column in columns)


def structure(spec: Spec) -> dict[str, Any]:
    """`STRUCTURE` of a network and the widths of its blocks, as JSON holds them."""
    fields = spec.to_dict() | {"widths": spec.block_widths()}
    return json.loads(json.dumps({name: fields[name] for name in (*STRUCTURE, "widths")}))

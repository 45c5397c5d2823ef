"""Latency tables by a formula, in place of measured ones."""

from tuning.latency_measurement import probe_widths
from tuning.latency_table import LatencyTable, Rows, operations, structure


def seconds_of(operation):
    """What an operation takes by the formula: the larger, the longer, and 0.1 microseconds at least."""
    area = operation.kind.rpartition(" ")[2].partition("x")[0]
    size = int(area) ** 2 if area.isdigit() else 1
    channels = operation.inputs + operation.outputs
    return 1e-7 + 1e-10 * channels + 2e-11 * size * operation.inputs * operation.outputs


def made_table(spec, networks=6, **fields):
    """The table of a network by that formula, with 0.1 ms beside the operations."""
    rows = {}
    for widths in probe_widths(spec, networks, 0):
        for operation in operations(spec, widths):
            row = rows.setdefault(operation.kind, Rows([], [], []))
            for column, value in zip(row, (operation.inputs, operation.outputs, seconds_of(operation)), strict=True):
                column.append(value)
    about = {"runtime": "a formula", "cpu": "none", "threads": None, "date": "2026-01-01"}
    known = {"overhead": 1e-4, "factor": 2.0, "batch": 1, "about": about}
    return LatencyTable(structure(spec), rows, **known | fields)

"""What every benchmark records of the machine, where its numbers are stored, and how tables are shown."""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inception_v1.atomic_files import write_json
from training.environment import cpu

FOLDER = Path(__file__).parent / "results"
CORES = len(os.sched_getaffinity(0))
PACKAGES = ("tensorflow", "keras", "jax", "torch", "torchvision", "onnxruntime", "openvino", "ai-edge-litert", "onnx")


@dataclasses.dataclass
class ResultTable:
    """A table with its title.

    Attributes:
        title: above it.
        heads: of the columns; the first is text, the others are numbers.
        rows: of strings.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def print(self, console: Console) -> None:
        table = Table(title=self.title, title_justify="left")
        for number, head in enumerate(self.heads):
            table.add_column(head, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        lines = (self.heads, ["---"] * len(self.heads), *self.rows)
        return "\n".join([self.title, "", *(f"| {' | '.join(line)} |" for line in lines)])


def parser(name: str, doc: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """The flags of `python -m benchmarks NAME`: how many rounds, unless that is None."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=(doc or "").partition(":")[0])
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds, help="Rounds that are measured.")
    return made


def run(
    name: str,
    doc: str | None,
    arguments: Sequence[str] | None,
    rounds: int,
    measure: Callable[[int], dict[str, Any]],
    tables: Callable[[dict[str, Any]], list[ResultTable]],
) -> list[ResultTable]:
    """What a benchmark without flags of its own does: measures so many rounds, saves, and returns the tables."""
    return run_with_flags(name, parser(name, doc, rounds), arguments, lambda options: measure(options.rounds), tables)


def run_with_flags(
    name: str,
    flags: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    tables: Callable[[dict[str, Any]], list[ResultTable]],
) -> list[ResultTable]:
    """The same of a benchmark with flags of its own, which `measure` gets."""
    result = measure(flags.parse_args(arguments))
    save(name, result)
    return tables(result)


def about() -> dict[str, Any]:
    """The machine, the versions, and how busy the machine was."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "cpu": cpu(),
        "cores": CORES,
        "python": platform.python_version(),
        "versions": versions,
        "date": f"{datetime.date.today()}",
        "load": round(os.getloadavg()[0], 2),
    }


def machine(known: dict[str, Any], *packages: str) -> str:
    """One line of what `about` returned, with these packages."""
    versions = [f"{name} {known['versions'][name] or 'not installed'}" for name in packages]
    return f"{known['cpu']}, {describe_cores(known)}, {', '.join(versions)}, {known['date']}"


def describe_cores(known: dict[str, Any]) -> str:
    """How many cores `about` counted: "1 core", "2 cores"."""
    return "1 core" if known["cores"] == 1 else f"{known['cores']} cores"


def save(name: str, result: dict[str, Any]) -> None:
    """Writes results under their name."""
    FOLDER.mkdir(exist_ok=True)
    write_json(FOLDER / f"{name}.json", result)


def load(name: str) -> dict[str, Any] | None:
    """The stored results of that name, or None."""
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else None

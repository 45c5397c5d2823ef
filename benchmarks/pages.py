"""Writes the stored tables into pages of docs/, between `<!-- benchmark NAME -->` and `<!-- end -->`."""

import importlib
import re
from pathlib import Path

from benchmarks import registry, results
from inception_v1.atomic_files import write_text

FOLDER = Path(__file__).parents[1] / "docs" / "results"
PLACE = re.compile(r"(<!-- benchmark (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
STUDIES = ("ablation", "widths", "staleness")  # which take hours, and have a command of their own


def main() -> int:
    for page in sorted(FOLDER.glob("*.md")):
        write_text(page, with_tables(page.read_text("utf-8")))
    return 0


def with_tables(text: str) -> str:
    """A page with the tables as they are stored."""
    return PLACE.sub(lambda place: place[1] + tables(place[2]) + place[3], text)


def tables(name: str) -> str:
    """The stored tables of a benchmark as Markdown."""
    result = results.load(name)
    if result is None:
        return f"\nNot measured: `python -m benchmarks {name}`.\n\n"
    if name in STUDIES:
        shown = [importlib.import_module(f"benchmarks.{name}").table(result)]
    else:
        module = registry.load(name)
        shown = getattr(module, "page_tables", module.tables)(result)
    return "".join(f"\n{table.markdown()}\n" for table in shown) + "\n"

"""Writes the stored tables into README.md, between `<!-- benchmark NAME -->` and `<!-- end -->`."""

import re
from pathlib import Path

from benchmarks import registry, results
from inception_v1.atomic_files import write_text

README = Path(__file__).parents[1] / "README.md"
PLACE = re.compile(r"(<!-- benchmark (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    text = README.read_text("utf-8")
    write_text(README, PLACE.sub(lambda place: place[1] + tables(place[2]) + place[3], text))
    return 0


def tables(name: str) -> str:
    """The stored tables of a benchmark as Markdown."""
    module, result = registry.load(name), results.load(name)
    if result is None:
        return f"\nNot measured: `python -m benchmarks {name}`.\n\n"
    shown = getattr(module, "readme", module.tables)(result)
    return "".join(f"\n{table.markdown()}\n" for table in shown) + "\n"

"""What the pages of runs and searches share: one HTML file that needs nothing else."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

PAGE = "report.html"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        heads: of the columns; none for a table without them.
        rows: of cells.
        marks: number of a row to its style, "best" or "paper".
        links: number of a row to what its first cell links to.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[object]]
    marks: Mapping[int, str] = dataclasses.field(default_factory=dict)
    links: Mapping[int, str] = dataclasses.field(default_factory=dict)


class EmbeddedFigure(NamedTuple):
    """A figure of a page.

    Attributes:
        name: what the page calls it where it cannot be seen.
        caption: how to read it.
        data: of its PNG file, in base64.
    """

    name: str
    caption: str
    data: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a run's page beside what every run has.

    Attributes:
        title: of it.
        text: a paragraph.
        table, figures: below it.
        details: tables below them that a reader opens, by title.
    """

    title: str
    text: str
    table: Table
    figures: Sequence[EmbeddedFigure]
    details: Mapping[str, Table]


def embed(name: str, caption: str, png: bytes) -> EmbeddedFigure:
    """A PNG file as a figure of a page."""
    return EmbeddedFigure(name, caption, base64.b64encode(png).decode("ascii"))


def render(template: Path, **values: Any) -> str:
    """A page as HTML, which extends `layout.html.jinja` and takes `parts.html.jinja`. All values are escaped."""
    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(template.name).render(**values)


def is_older(path: Path, than: Path) -> bool:
    """Whether a file is missing, or older than another one; False where that one is missing."""
    return than.is_file() and not (path.is_file() and path.stat().st_mtime_ns >= than.stat().st_mtime_ns)

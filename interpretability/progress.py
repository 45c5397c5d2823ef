"""Progress of commands while they last."""

import contextlib
from collections.abc import Callable, Iterator

from rich import progress
from rich.console import Console

Progress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[], None]]]


@contextlib.contextmanager
def no_progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows none."""
    yield lambda: None


@contextlib.contextmanager
def show_progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error; yields a function to call after each of `total` steps."""
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)

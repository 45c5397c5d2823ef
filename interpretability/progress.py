"""Progress of commands while they last."""

import contextlib
from collections.abc import Callable, Iterator

Progress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[], None]]]


@contextlib.contextmanager
def no_progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows none."""
    yield lambda: None


@contextlib.contextmanager
def show_progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error where that is a terminal; yields a function to call after each of `total`
    steps."""
    from rich.console import Console

    from training.report.progress import steps_bar

    with steps_bar(Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)

"""The latency table of a search: that of its folder, one that was measured earlier, or one that is measured before
its first trial."""

import logging
import os
import time
from pathlib import Path

from inception_v1.extras import extra
from inception_v1.spec import Spec
from training.errors import UserError
from tuning.budget import Budget
from tuning.latency_table import LatencyTable, read_latency_table
from tuning.results import SEARCH

LATENCY = "latency.json"  # in the folder of a search
IDLE, LONGEST_WAIT = 0.1, 3600  # seconds between two looks for the chief's table, and in all

log = logging.getLogger(__name__)


def kept_table(home: Path) -> LatencyTable | None:
    """The table in the folder of a search, if any."""
    return read_latency_table(home / LATENCY) if (home / LATENCY).is_file() else None


def find_table(
    home: Path, table: str | os.PathLike[str] | LatencyTable | None, start: Spec, budget: Budget, waits: bool
) -> LatencyTable | None:
    """The table that a search uses: that of its folder where it is resumed, else `table`, else one that is measured
    now where the budget bounds the latency; None where nothing asks for one.

    Args:
        home: folder of the search, which may not exist.
        table: one that was measured earlier, or its file.
        start: the network that the search starts from.
        budget: of the search.
        waits: whether another process measures, as the chief does for its workers.

    Raises:
        UserError: a table other than that of the search, or a file that holds none.
    """
    if isinstance(table, str | os.PathLike):
        table = read_latency_table(table)
    known = kept_table(home)
    if table and (known or (home / SEARCH).is_file()) and table != known:
        raise UserError(
            f"Expected the latency table that the search began with ({home / LATENCY}); Received: another one."
        )
    if known or table or budget.max_latency_ms is None:
        return known or table
    return _awaited(home) if waits else _measured(start)


def _measured(start: Spec) -> LatencyTable:
    with extra("export"):
        from tuning.latency_measurement import measure_latency

    log.warning("Measuring how long operations take on this machine, for the budget of milliseconds; a minute or more")
    return measure_latency(start, checks=0)


def _awaited(home: Path) -> LatencyTable:
    end = time.monotonic() + LONGEST_WAIT
    while (table := kept_table(home)) is None:
        if time.monotonic() > end:
            raise UserError(f"Expected the chief to measure {LATENCY} within {LONGEST_WAIT} s; Received: nothing.")
        time.sleep(IDLE)
    return table

"""Peers that take turns, each in a process of its own: TensorFlow and PyTorch do not share one well."""

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[[], int]  # does the work once and returns how many items (images) that were
Make = Callable[[], Work]  # called in the peer's process; raises ImportError where a peer is not installed


def alternate(makers: Mapping[str, Make], rounds: int, warm: int = 1) -> dict[str, dict[str, Any] | None]:
    """Times every peer once in each round, a different one first each time.

    Args:
        makers: picklable, by the name of the peer.
        rounds: that count.
        warm: calls before, which do not count.

    Returns:
        By name None where something is not installed, else: "rates" (items per second of every round), "first" (seconds
        of the first call), "memory" (bytes that the process held at most) and "grown" (how much more that is than
        before the first call).
    """
    context = multiprocessing.get_context("spawn")
    connections, results = {}, {}
    for name, make in makers.items():
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(make, there), daemon=True)
        process.start()
        there.close()
        results[name] = _answer(name, here)
        if results[name] is not None:
            connections[name] = here
            for call in range(warm):
                items, seconds = _ask(name, here, "work")
                if not call:
                    results[name] |= {"first": seconds, "rates": []}
    order = list(connections)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            items, seconds = _ask(name, connections[name], "work")
            results[name]["rates"].append(items / seconds)
    for name, connection in connections.items():
        peak = _ask(name, connection, "memory")
        before = results[name].pop("before")
        results[name] |= {"memory": peak, "grown": peak - before}
        connection.send("end")
    return results


def median(result: Mapping[str, Any]) -> float:
    """Median rate of a peer."""
    return statistics.median(result["rates"])


def spread(result: Mapping[str, Any], digits: int = 1) -> str:
    """Lowest and highest rate of a peer."""
    return f"{min(result['rates']):.{digits}f}-{max(result['rates']):.{digits}f}"


def _ask(name, connection, what):
    connection.send(what)
    return _answer(name, connection)


def _answer(name, connection):
    try:
        return connection.recv()
    except EOFError:
        raise RuntimeError(f"The process of {name!r} has died; see above.") from None


def _serve(make, connection):
    """In the peer's process: says what it holds, then answers until "end" comes."""
    try:
        work = make()
    except ImportError:
        connection.send(None)
        return
    connection.send({"before": _held()})
    while (what := connection.recv()) != "end":
        if what == "memory":
            connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            continue
        began = time.perf_counter()
        items = work()
        connection.send((items, time.perf_counter() - began))


def _held() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

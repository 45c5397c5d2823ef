"""Contestants that take turns, each in a process of its own: TensorFlow and PyTorch do not share one well."""

import contextlib
import dataclasses
import multiprocessing
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from training import startup_notes

SETTLE = 0.1  # seconds in which the threads of the contestant before stop spinning
Work = Callable[[], int]  # does the work once and returns its number of items (images)
Make = Callable[[], Work]  # called in the contestant's process; raises ImportError where a package is not installed


@dataclasses.dataclass(frozen=True)
class OnDevice:
    """Work on an accelerator, which has memory of its own."""

    work: Work
    peak: Callable[[], int | None]
    """Bytes that the process held there at most; None where the device does not count them."""

    def __call__(self) -> int:
        return self.work()


def alternate(makers: Mapping[str, Make], rounds: int, warmup: int = 1) -> dict[str, dict[str, Any] | None]:
    """Times every contestant once in each round, a different one first each time.

    Args:
        makers: picklable, by the name of the contestant.
        rounds: that count.
        warmup: calls before, which do not count.

    Returns:
        By name None where a package is not installed, else: "rates" (items per second of every round), "first" (seconds
        of the first call), "memory" (bytes that the process held at most), "grown" (how much more that is than before
        the first call) and "device" (bytes on an accelerator at most, for `OnDevice`).

    Raises:
        RuntimeError: the process of a contestant has died.
    """
    context = multiprocessing.get_context("spawn")
    processes, connections, results = [], {}, {}
    try:
        for name, make in makers.items():
            connections[name], there = context.Pipe()
            processes.append(context.Process(target=_serve, args=(make, there)))
            processes[-1].start()
            there.close()
            results[name] = _receive(name, connections[name])
            for call in range(warmup if results[name] else 0):
                _, seconds = _request(name, connections[name], "work")
                if not call:
                    results[name]["first"] = seconds
        present = [name for name in makers if results[name]]
        for name in present:
            results[name]["rates"] = []
        for turn in range(rounds):
            first = turn % max(len(present), 1)
            for name in present[first:] + present[:first]:
                time.sleep(SETTLE)
                items, seconds = _request(name, connections[name], "work")
                results[name]["rates"].append(items / seconds)
        for name in present:
            memory = _request(name, connections[name], "memory")
            results[name] |= memory | {"grown": memory["memory"] - results[name].pop("before")}
    finally:
        for connection in connections.values():
            connection.close()  # which ends the process
        for process in processes:
            process.join()
    return results


def median(result: Mapping[str, Any]) -> float:
    """Median rate of a contestant."""
    return statistics.median(result["rates"])


def spread(result: Mapping[str, Any], digits: int = 1) -> str:
    """Lowest and highest rate of a contestant."""
    return f"{min(result['rates']):.{digits}f}-{max(result['rates']):.{digits}f}"


def _request(name: str, connection: Connection, what: str) -> Any:
    with contextlib.suppress(OSError):  # of a process that has died, which `_receive` reports
        connection.send(what)
    return _receive(name, connection)


def _receive(name: str, connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        raise RuntimeError(f"The process of {name!r} has died; see above.") from None


def _serve(make: Make, connection: Connection) -> None:
    """In the contestant's process: sends its memory, then responds to requests until the other end closes."""
    try:
        with startup_notes.hidden():
            work = make()
    except ImportError:
        connection.send(None)
        return
    connection.send({"before": memory_of()})
    while (what := _next_request(connection)) is not None:
        if what == "memory":
            device = {"device": work.peak()} if isinstance(work, OnDevice) else {}
            connection.send({"memory": memory_of(which="VmHWM"), **device})
            continue
        began = time.perf_counter()
        items = work()
        connection.send((items, time.perf_counter() - began))


def _next_request(connection: Connection) -> str | None:
    try:
        return connection.recv()
    except EOFError:
        return None


def sample_memory(command: Sequence[str], held: Callable[[int], int], every: float, **environment: str) -> list[int]:
    """Runs a command, whose output is not shown, and returns the bytes that it holds, again and again until its end.

    Args:
        command: program and arguments.
        held: from the command's process to bytes.
        every: seconds between the end of a sample and the next one.
        **environment: variables that the command sees besides.

    Raises:
        RuntimeError: the command failed.
    """
    memory: list[int] = []
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            memory.append(held(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(every)
    if process.returncode:
        raise RuntimeError(f"The command ended with status {process.returncode}: {' '.join(command)}.")
    return memory


def memory_of(process: int | str = "self", which: str = "VmRSS") -> int:
    """Bytes that a process holds ("VmRSS") or held at most ("VmHWM"; `getrusage` adds the parent's); 0 at its end."""
    with open(f"/proc/{process}/status") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(which)), 0)

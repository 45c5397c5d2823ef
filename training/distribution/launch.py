"""A cluster on this machine: a process for each task on loopback, one stream of lines, one end for all of them.

On Linux the processes get SIGTERM even when this one is killed by SIGKILL; elsewhere they stay behind then.
"""

import contextlib
import ctypes
import functools
import json
import math
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Literal

from training.errors import USER_STATUS, UserError

GRACE = 25.0  # seconds from a signal to SIGKILL, in which processes save their state; preemptible machines give 30
STUCK = 10.0  # the same after a failure, when a worker that waits for lost workers may never react
FINAL_OUTPUT = 1.5  # seconds in which the others print what they saw of a failure
DRAIN = 3.0  # seconds for lines on their way: what left its process group may hold a pipe, a terminal may stand still
POLL = 0.03  # seconds between two checks of the processes
CURSOR_MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")  # of a progress bar; colors, which end in m, stay


def launch(
    command: Sequence[str],
    workers: int,
    show: Callable[[str], None],
    *,
    parameter_servers: int = 0,
    restarts: int = 0,
    environment: Literal["tensorflow", "jax", "keras-tuner"] = "tensorflow",
    grace: float = GRACE,
) -> int:
    """Runs a command as every task of a cluster; call it from the main thread.

    Without parameter servers all workers must end well. With them, and with Keras Tuner, there is a chief too, whose
    end is everyone's, and a worker that dies is started again alone, on its address. Any other failure ends, and starts
    again, all. SIGINT, SIGTERM and SIGHUP end all, unless this process ignores them; a second SIGINT does so at once.

    Args:
        command: the whole argv of each process.
        workers: processes that train, without the chief.
        show: takes each line, "[worker 0] ...", on a thread; what it raises ends all, and is raised again.
        parameter_servers: processes that hold variables; TensorFlow only.
        restarts: how many failures in all are followed by a new start; exit status 2 never is.
        environment: which variables tell a process its task: TF_CONFIG, those of `keras.distribution.initialize`, or
            those of Keras Tuner's chief and workers.
        grace: seconds that processes have to end before they are killed.

    Returns:
        0; the exit status of the process that failed, 128 plus the number of the signal that killed it, or 128 plus
        that of the signal that ended all.

    Raises:
        UserError: an argument out of range.
        OSError: a process cannot be started.
    """
    for name, least in {"workers": 1, "parameter_servers": 0, "restarts": 0}.items():
        if locals()[name] < least:
            raise UserError(f"Expected {name} to be {least} or more; Received: {name}={locals()[name]}.")
    if environment != "tensorflow" and parameter_servers:
        raise UserError(
            f"Expected parameter servers with TensorFlow only; Received: parameter_servers={parameter_servers}."
        )
    with _caught() as received, _Cluster(command, restarts, received, grace, show) as cluster:
        while True:
            cluster.start(_variables(workers, parameter_servers, environment))
            chief = parameter_servers or environment == "keras-tuner"
            status = cluster.wait({"chief"} if chief else {f"worker {i}" for i in range(workers)})
            if status and received:
                return 128 + received[0]
            if status in (0, USER_STATUS) or not (restart := cluster.restart()):
                return status
            cluster.report(f"starting the cluster again, {restart}")


def _variables(workers: int, parameter_servers: int, environment: str) -> dict[str, dict[str, str]]:
    """What each process finds in its environment, by its name: "chief", "worker 0", "ps 0"; on new free ports."""
    if environment == "keras-tuner":
        host, _, port = _free_addresses(1)[0].partition(":")
        shared = {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}
        names = ["chief", *(f"worker {i}" for i in range(workers))]
        return {name: {**shared, "KERASTUNER_TUNER_ID": name.replace(" ", "")} for name in names}
    sizes = {"worker": workers}
    if parameter_servers:
        sizes = {"chief": 1, **sizes, "ps": parameter_servers}
    addresses = iter(_free_addresses(sum(sizes.values())))
    cluster = {kind: [next(addresses) for _ in range(size)] for kind, size in sizes.items()}
    tasks = {"chief" if kind == "chief" else f"{kind} {i}": (kind, i) for kind in cluster for i in range(sizes[kind])}
    if environment == "jax":
        shared = {
            "KERAS_BACKEND": "jax",
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": cluster["worker"][0],  # JAX needs the coordinator's alone
            "KERAS_DISTRIBUTION_NUM_PROCESSES": str(workers),
        }
        return {name: {**shared, "KERAS_DISTRIBUTION_PROCESS_ID": str(index)} for name, (_, index) in tasks.items()}
    return {
        name: {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}
        for name, (kind, index) in tasks.items()
    }


def _free_addresses(count: int) -> list[str]:
    """Addresses 127.0.0.1:PORT, all bound at the same time, so that no two are equal."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.socket()) for _ in range(count)]
        for server in servers:
            server.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]


@contextlib.contextmanager
def _caught() -> Iterator[list[int]]:
    """Collects the signals that ask for the end; ignored ones (nohup) stay ignored.

    Nothing is raised where one arrives: between a fork and its entry in a list that would leave a process behind.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_parent() -> Callable[[], object] | None:
    """What a process calls between fork and exec to get SIGTERM when this one dies; Linux alone has that."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # found before the fork, after which a lock of another thread stays locked
    return functools.partial(prctl, 1, int(signal.SIGTERM))  # 1: PR_SET_PDEATHSIG


class _Cluster:
    """The processes of one start after another; leaving the context ends them.

    One thread by process reads its lines and one shows them all: the main thread never waits for a terminal.
    """

    def __init__(
        self,
        command: Sequence[str],
        restarts: int,
        received: list[int],
        grace: float,
        show: Callable[[str], None],
    ) -> None:
        self._command, self._received, self._grace, self._show = command, received, grace, show
        self._restarts = (f"restart {i} of {restarts}" for i in range(1, restarts + 1))
        self._variables: dict[str, dict[str, str]] = {}
        self._running: dict[str, tuple[subprocess.Popen[bytes], threading.Thread]] = {}
        self._lines: queue.Queue[str | None] = queue.Queue(1000)
        self._refused: list[Exception] = []  # what `show` raised
        self._writer = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> "_Cluster":
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGTERM)
        self._put(None)
        self._writer.join(DRAIN)

    def report(self, line: str) -> None:
        """Shows a line of the launcher's own."""
        self._put(f"[launch] {line}")

    def restart(self) -> str | None:
        """Counts a restart and describes it; None when none is left."""
        return next(self._restarts, None)

    def start(self, variables: dict[str, dict[str, str]]) -> None:
        """Starts a process for each name, with these variables in its environment."""
        self._variables = variables
        for name in variables:
            self._start(name)

    def wait(self, deciding: set[str]) -> int:
        """Ends all when the deciding processes ended well, one failed, or a signal comes. Returns the status."""
        while not self._received:
            if self._refused:
                raise self._refused[0]
            ended = self._ended()
            deciding -= {name for name, code in ended.items() if code == 0}
            if not deciding:
                self._end(signal.SIGTERM)
                return 0
            for name, code in ended.items():
                if code == 0:
                    continue
                alone = "chief" in self._variables and name.startswith("worker") and code != USER_STATUS
                if alone and (restart := self.restart()):
                    self.report(f"{name} {_how(code)}; starting it again, {restart}")
                    self._start(name)
                    continue
                self.report(f"{name} {_how(code)}")
                self._pause(FINAL_OUTPUT)
                self._end(signal.SIGTERM, STUCK)
                return code if code > 0 else 128 - code
            time.sleep(POLL)
        first = self._received[0]
        self._end(first if first == signal.SIGINT else signal.SIGTERM)
        return 128 + first

    def _start(self, name: str) -> None:
        others = ("TF_CONFIG", "KERAS_DISTRIBUTION_", "KERASTUNER_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(others)}
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**inherited, "PYTHONUNBUFFERED": "1", **self._variables[name]},
            start_new_session=True,  # and with it a process group, which all that it starts belongs to
            preexec_fn=_end_with_parent(),
        )
        reader = threading.Thread(target=self._read, args=(name, process.stdout), daemon=True)
        self._running[name] = process, reader
        reader.start()

    def _read(self, name: str, pipe: BinaryIO) -> None:
        """Passes lines on; of one that carriage returns overwrite, what a terminal is left with."""
        with pipe:
            for line in pipe:
                text = line.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2]
                self._lines.put(f"[{name}] {CURSOR_MOVES.sub('', text)}")

    def _put(self, line: str | None) -> None:
        with contextlib.suppress(queue.Full):  # a reader that has stopped must not keep processes alive
            self._lines.put(line, timeout=DRAIN)

    def _write(self) -> None:
        for line in iter(self._lines.get, None):
            if not self._refused:  # else let go of it, so that no process waits for its pipe
                try:
                    self._show(line)
                except Exception as error:  # `wait` raises it
                    self._refused.append(error)

    def _ended(self) -> dict[str, int]:
        """Return codes of those that ended since the last call, minus the number for a signal."""
        ended = {}
        for name, (process, _) in self._running.items():
            if (code := process.poll()) is not None:
                _send(process, signal.SIGKILL)  # what it left running, at once: no other group has its number yet
                ended[name] = code
        for name in ended:
            _, reader = self._running.pop(name)
            if reader.is_alive():
                reader.join(DRAIN)
        return ended

    def _pause(self, seconds: float) -> None:
        """Waits until no process runs, but no longer than this, and not after a second Ctrl-C."""
        deadline = time.monotonic() + seconds
        while self._running and time.monotonic() < deadline and self._received.count(signal.SIGINT) < 2:
            self._ended()
            time.sleep(POLL)

    def _end(self, number: int, longest: float = math.inf) -> None:
        """Ends all: by this signal, and by SIGKILL after the grace, or the longest time if that is shorter."""
        for process, _ in self._running.values():
            _send(process, number)
        self._pause(min(self._grace, longest))
        for process, _ in self._running.values():
            _send(process, signal.SIGKILL)
        for process, _ in self._running.values():
            process.wait()
        self._ended()


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to the group that a process leads."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _how(code: int) -> str:
    """How a process ended that failed."""
    if code > 0:
        return f"ended with exit status {code}"
    return f"was killed by {next((s.name for s in signal.Signals if s == -code), f'signal {-code}')}"

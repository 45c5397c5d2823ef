"""How the processes of a cluster recognize each other before TensorFlow's servers take their ports."""

import contextlib
import hashlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from training.distribution.cluster import ELSE, SECONDS

LINE = 1000  # bytes, more than any line of a handshake


class Handshake(socketserver.ThreadingTCPServer):
    """Says at the address of this process which task of which cluster it is, and asks the others the same.

    A process that asks is known from then on, so that one of two may leave as soon as it knows the other.

    Args:
        tasks: name to "HOST:PORT" of all tasks of the cluster.
        own: name of this process' task.

    Raises:
        OSError: the port is taken.
    """

    allow_reuse_address = True

    def __init__(self, tasks: Mapping[str, str], own: str) -> None:
        cluster = hashlib.sha256(json.dumps(sorted(tasks.items())).encode()).hexdigest()
        self.greeting = {"googlenet cluster": cluster, "task": own}
        self._known: set[str] = set()
        super().__init__(("", int(tasks[own].rpartition(":")[2])), _Greeter)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Answers the others until the block ends, and then those that are asking."""
        # A daemon: where Ctrl-C comes before `start` knows that the thread runs, the process must not wait for it.
        thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        try:
            thread.start()
            yield
        finally:
            if thread.is_alive():
                self.shutdown()
                thread.join()
            self.server_close()

    def find_problem(self, name: str, address: str) -> str | None:
        """Why a task does not count as there, for `await_all`; None where it does."""
        if name in self._known:
            return None
        host, _, port = address.rpartition(":")
        try:
            connection = socket.create_connection((host, int(port)), SECONDS)
        except OSError:
            return ""
        with connection, contextlib.suppress(OSError):
            connection.sendall(_encode(self.greeting))
            return self.meet(_decode(connection.makefile("rb").readline(LINE)), name)
        return ELSE

    def meet(self, greeting: dict[str, Any], expected: str | None = None) -> str | None:
        """Notes which task greets. Returns why it does not count as the expected one, or None."""
        task = greeting.get("task")
        if not isinstance(task, str):
            return ELSE
        if greeting != self.greeting | {"task": task}:
            return f", where {task} of another cluster answers"
        self._known.add(task)
        return None if expected in (None, task) else f", where {task} answers"


class _Greeter(socketserver.StreamRequestHandler):
    timeout = SECONDS

    def handle(self) -> None:
        assert isinstance(self.server, Handshake)
        with contextlib.suppress(OSError):  # whoever asks may leave
            self.server.meet(_decode(self.rfile.readline(LINE)))
            self.wfile.write(_encode(self.server.greeting))


def _encode(greeting: dict[str, Any]) -> bytes:
    return json.dumps(greeting).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    """The greeting in a line; {} in that of another service."""
    with contextlib.suppress(ValueError):
        greeting = json.loads(line)
        return greeting if isinstance(greeting, dict) else {}
    return {}

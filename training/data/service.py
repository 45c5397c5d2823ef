"""Machines that prepare batches for a training run elsewhere: TensorFlow's `tf.data` service."""

import contextlib
import socket
from collections.abc import Iterator

import tensorflow as tf

from training.errors import UserError


def check_reachable(address: str) -> None:
    """Raises UserError unless something listens at "grpc://HOST:PORT", where TensorFlow would wait for minutes."""
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    expected = "Expected a data service at grpc://HOST:PORT"
    if not address.startswith("grpc://") or not host or not port.isdecimal():
        raise UserError(f"{expected}; Received: {address!r}.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"{expected}; Received: {address!r}, where nothing listens ({error}).") from None


@contextlib.contextmanager
def run_service(host: str = "localhost", port: int = 0, dispatcher: str | None = None) -> Iterator[str]:
    """Runs a worker, and without an address of a dispatcher that too, until the block ends.

    A worker only runs graphs of TensorFlow operations: it needs neither this package nor the recipe, but the files of
    the source under the same paths.

    Args:
        host: name under which the other machines reach this one.
        port: of the dispatcher, or of the worker where the dispatcher is another; 0 takes a free one.
        dispatcher: "grpc://HOST:PORT" of the dispatcher to work for.

    Yields:
        The dispatcher's address, for `training.train.train(data_service=...)` and further workers.

    Raises:
        UserError: a port that is taken (TensorFlow would share it), or a dispatcher that is not reachable.
    """
    service = tf.data.experimental.service
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise UserError(f"Expected a free port; Received: port={port} ({error.strerror}).") from None
    if dispatcher is not None:
        check_reachable(dispatcher)
    own = None
    if dispatcher is None:
        own = service.DispatchServer(service.DispatcherConfig(port=port))
        dispatcher, port = f"grpc://{host}:{own.target.rpartition(':')[2]}", 0
    config = service.WorkerConfig(
        dispatcher_address=dispatcher.removeprefix("grpc://"), worker_address=f"{host}:%port%", port=port
    )
    worker = service.WorkerServer(config)
    try:
        yield dispatcher
    finally:
        worker._stop()
        if own:
            own._stop()

"""Machines that prepare batches for a training run elsewhere: TensorFlow's `tf.data` service."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def serving(host: str = "localhost", port: int = 0, dispatcher: str | None = None) -> Iterator[str]:
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
        ValueError: an address without "grpc://".
    """
    service = tf.data.experimental.service
    if dispatcher is not None and not dispatcher.startswith("grpc://"):
        raise ValueError(f"Expected dispatcher to be grpc://HOST:PORT; Received: dispatcher={dispatcher!r}.")
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

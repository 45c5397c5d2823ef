"""The paper's network behind TF Serving's protocol, under load: python -m benchmarks serving

1, 8 and 32 clients each send a JPEG of 500 x 375 pixels and wait for its classes, again and again for a minute, over
gRPC and over REST. Either the server joins their requests to batches, or the clients send 32 images at a time. Beside
images per second and the time that a client waits stands the share of the bare forward pass: of what the export's
network computes alone, on pixels that are decoded already, in batches of 32, just before and after that minute, since a
shared machine is faster in some minutes than in others. TF Serving serves where `tensorflow_model_server` is installed,
else a server in Python that speaks its protocol. Needs the extra [test]; 18 minutes on 2 cores.
"""

import base64
import collections
import contextlib
import functools
import http.client
import importlib
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.input_pipeline import jpegs
from benchmarks.results import ResultTable
from benchmarks.rounds import memory_of
from training import startup_notes

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NAME = "serving"
MODEL = "googlenet"
SIZE, BATCH = 224, 32
TRANSPORTS = ("gRPC", "REST")
CLIENTS = (1, 8, 32)
JOINED, SENT = "joined by the server", "sent by the clients"  # who makes the batches
BARE_ROUNDS = 8
PERCENTILES = (50, 99)  # of the time that a request takes
WARM_UP = 2.0  # seconds whose requests do not count

Send = Callable[[list[bytes]], int]  # returns how many of the images were classified


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__)
    parser.add_argument("--seconds", type=float, default=60, help="How long clients send.")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="Numbers of clients.")
    options = parser.parse_args(arguments)
    result = measure(options.seconds, options.clients)
    results.save(NAME, result)
    return tables(result)


def measure(seconds: float, clients: Sequence[int]) -> dict[str, Any]:
    """What clients see in every setting, and the images per second of the bare forward pass before and after it."""
    stand_in: Any = importlib.import_module("tests.helpers.serving_stand_in")
    settings: list[dict[str, Any]] = []
    result = {"about": results.about(), "seconds": seconds, "server": stand_in.SERVER}
    with tempfile.TemporaryDirectory() as scratch:
        write_export(Path(scratch))
        for batches in (JOINED, SENT):
            joined = BATCH if batches == JOINED else None
            with server_process(Path(scratch), max(clients), joined) as (addresses, memory):
                bare = bare_rate(Path(scratch))
                for transport, count in itertools.product(TRANSPORTS, clients):
                    setting = {"batches": batches, "transport": transport, "clients": count}
                    held = memory()
                    setting |= load(addresses, transport, count, BATCH if batches == SENT else 1, seconds)
                    setting["memory"] = [held, memory()]
                    before, bare = bare, bare_rate(Path(scratch))
                    setting["bare"] = [before, bare]
                    settings.append(setting)
    return result | {"settings": settings}


def write_export(folder: Path) -> None:
    """A SavedModel of the paper's network with random weights, which cost as much as any."""
    from inception_v1 import build_googlenet
    from training.export import savedmodel
    from training.export.export_model import ExportModel

    network = ExportModel(build_googlenet(aux=False), [str(number) for number in range(1000)])
    version = folder / "1"
    version.mkdir()
    (version / savedmodel.LABELS).write_text("".join(f"{name}\n" for name in network.labels))
    (version / savedmodel.BATCHING).write_text(savedmodel.batching_parameters(BATCH))
    savedmodel.write(version, network, top=5, float_only=False)


def bare_rate(folder: Path) -> float:
    """Images per second of the export's network in batches of 32, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_bare_rate, (folder,))


def _bare_rate(folder: Path) -> float:
    with startup_notes.hidden():
        import tensorflow as tf

    predict = tf.saved_model.load(str(folder / "1")).signatures["predict_images"]
    pixels = tf.constant(np.random.default_rng(0).uniform(0, 255, (BATCH, SIZE, SIZE, 3)), tf.float32)
    predict(images=pixels)
    spent = []
    for _ in range(BARE_ROUNDS):
        began = time.perf_counter()
        predict(images=pixels)["probabilities"].numpy()
        spent.append(time.perf_counter() - began)
    return BATCH / statistics.median(spent)


@contextlib.contextmanager
def server_process(folder: Path, threads: int, batching: int | None) -> Iterator[tuple[Any, Callable[[], int]]]:
    """A server in a process of its own: its addresses, and a function that returns the bytes that it holds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(folder, threads, batching, there))
    process.start()
    there.close()
    try:
        addresses = here.recv()
        yield addresses, functools.partial(memory_of, addresses.process)
    finally:
        here.close()  # which ends the server
        process.join()


def _serve(folder: Path, threads: int, batching: int | None, connection: Connection) -> None:
    with startup_notes.hidden():
        stand_in: Any = importlib.import_module("tests.helpers.serving_stand_in")
    with stand_in.serving(folder, MODEL, threads, batching) as addresses:
        connection.send(addresses)
        with contextlib.suppress(EOFError):
            connection.recv()


def load(addresses: Any, transport: str, clients: int, images: int, seconds: float) -> dict[str, Any]:
    """What clients that send so many images at a time see: images per second, how long the requests after the warm-up
    that got their classes took, and how many did not, by the reason. A client ends at its first one."""
    make = {"gRPC": grpc_client, "REST": rest_client}[transport]
    encoded = jpegs()[:images]
    waited: list[float] = []
    failed: collections.Counter[str] = collections.Counter()
    began = time.perf_counter()

    def send_on() -> None:
        with make(addresses) as send:
            while (sent := time.perf_counter()) < began + WARM_UP + seconds:
                try:
                    classified = send(encoded)
                except Exception as error:  # whatever it is, a client has got no classes
                    failed[repr(error)] += 1
                    return
                if classified < len(encoded):
                    failed["images without a class"] += 1
                    return
                if sent > began + WARM_UP:
                    waited.append(time.perf_counter() - sent)

    threads = [threading.Thread(target=send_on) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = max(seconds, time.perf_counter() - began - WARM_UP)
    waits = dict(zip(PERCENTILES, 1000 * np.percentile(waited, PERCENTILES), strict=True)) if waited else {}
    return {
        "images": images,
        "rate": len(waited) * images / took,
        "requests": len(waited),
        "ms": {str(part): round(float(wait), 3) for part, wait in waits.items()},
        "failed": failed,
    }


@contextlib.contextmanager
def grpc_client(addresses: Any) -> Iterator[Send]:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    from training.serving_client import SECONDS, UNLIMITED
    from training.serving_protocol import OK, predict_request

    with grpc.insecure_channel(addresses.grpc, UNLIMITED) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def send(encoded: list[bytes]) -> int:
            request = predict_request(MODEL, "serving_default", {"image_bytes": np.array(encoded, "object")})
            request.output_filter.extend(("labels", "scores", "status"))
            status = stub.Predict(request, timeout=SECONDS).outputs["status"]
            return int((tf.make_ndarray(status) == OK.encode()).sum())

        yield send


@contextlib.contextmanager
def rest_client(addresses: Any) -> Iterator[Send]:
    from training.serving_client import SECONDS
    from training.serving_protocol import OK

    host = addresses.rest.removeprefix("http://")

    def send(encoded: list[bytes]) -> int:
        rows = [{"b64": base64.b64encode(each).decode()} for each in encoded]
        connection = http.client.HTTPConnection(host, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", f"/v1/models/{MODEL}:predict", json.dumps({"instances": rows}))
            response = connection.getresponse()
            body = json.loads(response.read())
        if response.status != http.client.OK:
            raise OSError(body["error"])
        return sum(row["status"] == OK for row in body["predictions"])

    yield send


def tables(result: dict[str, Any]) -> list[ResultTable]:
    rows = []
    for setting in result["settings"]:
        before, after = setting["memory"]
        bare = statistics.mean(setting["bare"])
        rows.append(
            [
                f"{setting['batches']}, {setting['transport']}, {setting['clients']}",
                f"{setting['rate']:.1f}",
                f"{bare:.1f}",
                f"{setting['rate'] / bare:.2f}",
                *(f"{setting['ms'][str(part)]:.0f}" if setting["ms"] else "" for part in PERCENTILES),
                str(sum(setting["failed"].values())),
                f"{after / 1e9:.2f} ({(after - before) / 1e6:+.0f} MB)",
            ]
        )
    title = (
        f"JPEGs of 500x375 to the paper's network for {result['seconds']:.0f} s each, by {result['server']}; "
        f"{results.machine(result['about'], 'tensorflow')}, load {result['about']['load']}"
    )
    heads = [
        "batches, transport, clients",
        "images/s",
        "bare images/s",
        "share",
        *(f"p{part} ms" for part in PERCENTILES),
    ]
    return [ResultTable(title, [*heads, "failed", "server GB"], rows)]

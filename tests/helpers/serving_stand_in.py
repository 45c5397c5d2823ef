"""TF Serving, or a server that stands in for it: its gRPC services and its REST interface over exported signatures."""

import base64
import contextlib
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.request
from concurrent import futures
from typing import NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.helpers.processes import free_ports

MODEL_SERVER = shutil.which("tensorflow_model_server")
SERVER = "tensorflow_model_server" if MODEL_SERVER else "stand-in"


class Addresses(NamedTuple):
    grpc: str  # HOST:PORT
    rest: str  # http://HOST:PORT
    process: int  # that serves


@contextlib.contextmanager
def serving(base, name, threads=4, batching=None):
    """Serves the versions in a folder under a name until the block ends: TF Serving where it is installed.

    Requests of several clients run together, up to `threads` of them; with `batching` in batches of up to so many
    images, which wait for 2 ms, as `googlenet export --batching` asks of TF Serving.
    """
    if MODEL_SERVER:
        flags = ["--enable_batching", "--enable_per_model_batching_parameters"] if batching else []
        server = _model_server(base, name, flags)
    else:
        server = _stand_in(base, name, threads, batching)
    with server as addresses:
        yield addresses


@contextlib.contextmanager
def _model_server(base, name, flags):
    ports = free_ports(2)
    server = subprocess.Popen(
        [
            MODEL_SERVER,
            f"--port={ports[0]}",
            f"--rest_api_port={ports[1]}",
            f"--model_base_path={base}",
            f"--model_name={name}",
            *flags,
        ]
    )
    addresses = Addresses(f"localhost:{ports[0]}", f"http://localhost:{ports[1]}", server.pid)
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                state = json.load(urllib.request.urlopen(f"{addresses.rest}/v1/models/{name}"))
                if state["model_version_status"][0]["state"] == "AVAILABLE":
                    break
            assert server.poll() is None, "the server ended"
            time.sleep(0.5)
        else:
            raise TimeoutError(f"{MODEL_SERVER} did not load {base} within a minute")
        yield addresses
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def _stand_in(base, name, threads, batching):
    newest = max(int(path.name) for path in base.iterdir() if path.name.isdecimal())  # as TF Serving finds it
    served = Served(tf.saved_model.load(str(base / str(newest))), name, newest, batching)
    server = grpc.server(futures.ThreadPoolExecutor(threads), options=[("grpc.max_receive_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predictions(served), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(served), server)
    port = server.add_insecure_port("localhost:0")
    rest = RestServer(("localhost", 0), rest_handler(served))
    thread = threading.Thread(target=rest.serve_forever, daemon=True)
    server.start()
    thread.start()
    try:
        yield Addresses(f"localhost:{port}", f"http://localhost:{rest.server_port}", os.getpid())
    finally:
        rest.shutdown()
        rest.server_close()
        server.stop(None).wait()


class RestServer(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait; Python's own 5 would refuse some of 32 clients


class Served:
    """The signatures of one version."""

    def __init__(self, loaded, name, version, batching):
        self._loaded, self.name, self.version = loaded, name, version
        self.signatures = loaded.signatures
        self._batched = {key: _in_batches(each, batching) for key, each in self.signatures.items()} if batching else {}

    def check(self, spec):
        if spec.name != self.name:
            raise KeyError(f"Servable not found for request: Latest({spec.name})")

    def run(self, signature, inputs):
        """{output: array} of {input: array}. Raises ValueError where TF Serving responds with INVALID_ARGUMENT."""
        if signature not in self.signatures:
            raise ValueError(f"Serving signature name: {signature!r} not found in signature def")
        function = self.signatures[signature]
        specs = function.structured_input_signature[1]
        if set(inputs) != set(specs):
            raise ValueError(f"input size does not match signature: {sorted(inputs)}")
        try:
            tensors = {key: tf.constant(values, specs[key].dtype) for key, values in inputs.items()}
            outputs = self._batched.get(signature, function)(**tensors)
            return {key: value.numpy() for key, value in outputs.items()}
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(str(error).splitlines()[0]) from error


def _in_batches(function, largest):
    """A signature that joins the calls of several threads, by the scheduler of batches that TF Serving has too.

    Its numbers are those of `savedmodel.batching_parameters`. Every size is allowed, so that no batch is padded.
    """
    ((name, spec),) = function.structured_input_signature[1].items()
    outputs = sorted(function.structured_outputs)

    @tf.function(input_signature=[spec])  # else it would be traced in every call
    @tf.nondifferentiable_batch_function(1, largest, 2000, [*range(1, largest + 1)], max_enqueued_batches=100)
    def joined(values):
        found = function(**{name: values})
        return [found[key] for key in outputs]

    return lambda **inputs: dict(zip(outputs, joined(inputs[name]), strict=True))


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, served):
        self._served = served

    def Predict(self, request, context):
        with refusals(context):
            self._served.check(request.model_spec)
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            outputs = self._served.run(request.model_spec.signature_name or "serving_default", inputs)
        wanted = list(request.output_filter) or list(outputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = self._served.name
        response.model_spec.version.value = self._served.version
        for key in wanted:
            response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
        return response

    def GetModelMetadata(self, request, context):
        with refusals(context):
            self._served.check(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, function in self._served.signatures.items():
            entry = signatures.signature_def[name]
            entry.method_name = "tensorflow/serving/predict"
            for side, tensors in (
                (entry.inputs, function.structured_input_signature[1]),
                (entry.outputs, function.structured_outputs),
            ):
                for key, tensor in tensors.items():
                    side[key].dtype = tensor.dtype.as_datatype_enum
                    side[key].tensor_shape.CopyFrom(tensor.shape.as_proto())
        response.metadata["signature_def"].Pack(signatures)
        return response


class Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, served):
        self._served = served

    def GetModelStatus(self, request, context):
        with refusals(context):
            self._served.check(request.model_spec)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=self._served.version, state="AVAILABLE")
        return response


@contextlib.contextmanager
def refusals(context):
    """Turns errors of the block into the statuses that TF Serving responds with."""
    try:
        yield
    except KeyError as error:
        context.abort(grpc.StatusCode.NOT_FOUND, error.args[0])
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def rest_handler(served):
    """TF Serving's REST interface: rows ("instances") or columns ("inputs"), images as {"b64": ...}."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                if self.path != f"/v1/models/{served.name}:predict":
                    self._respond(404, {"error": f"Malformed request: POST {self.path}"})
                    return
                signature = body.get("signature_name", "serving_default")
                (key,) = served.signatures[signature].structured_input_signature[1]
                rows = body.get("instances", body.get("inputs"))
                rows = rows[key] if isinstance(rows, dict) else [_unnamed(row, key) for row in rows]
                outputs = served.run(signature, {key: [_bytes(row) for row in rows]})
            except (KeyError, ValueError) as error:
                self._respond(400, {"error": str(error)})
                return
            columns = {key: _jsonable(values) for key, values in outputs.items()}
            if "instances" in body:
                count = len(next(iter(columns.values())))
                self._respond(200, {"predictions": [{key: v[i] for key, v in columns.items()} for i in range(count)]})
            else:
                self._respond(200, {"outputs": columns})

        def _respond(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body, allow_nan=False).encode())

        def log_message(self, *arguments):
            pass

    return Handler


def _unnamed(row, key):
    return row[key] if isinstance(row, dict) and set(row) == {key} else row


def _bytes(row):
    return base64.b64decode(row["b64"]) if isinstance(row, dict) else row


def _jsonable(values):
    return np.char.decode(values.astype("S")).tolist() if values.dtype == object else values.tolist()

"""Predictions of an export for image files: on this machine, or by a TF Serving server."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from training.data.image_files import warn_of_failures, why_unreadable
from training.errors import UserError
from training.serving_protocol import OK, predict_request

BATCH = 32  # images of a request
SECONDS = 60.0  # that a server may take; it may have to load its kernels first
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

Classes = dict[str, list[tuple[str, float]]]
Track = Callable[[Iterable[Any], int], Iterable[Any]]


def untracked(batches: Iterable[Any], count: int) -> Iterable[Any]:
    """The batches as they are, whatever their number."""
    return batches


def newest_version(folder: str | os.PathLike[str]) -> Path | None:
    """The SavedModel in a folder, or the one of the highest version in it; None where there is none."""
    versions = [path for path in Path(folder).glob("*") if path.name.isdecimal()]
    places = [Path(folder), *sorted(versions, key=lambda path: -int(path.name))]
    return next((place for place in places if (place / "saved_model.pb").is_file()), None)


def classify(folder: Path, files: Sequence[str], top: int, track: Track = untracked) -> Classes:
    """Names the best classes of image files by an export, which needs nothing of this package for it.

    Args:
        folder: of the SavedModel.
        files: paths of JPEG, PNG, GIF, BMP or WebP images; those that cannot be read are left out with a warning.
        top: classes an image, best first; at most as many as the export names.
        track: wraps the batches, of which it gets the number too, for instance to show progress.

    Returns:
        {path: [(class name, probability), ...]}.

    Raises:
        UserError: a float-only export, or no file that is an image.
    """
    predict = tf.saved_model.load(str(folder)).signatures["serving_default"]
    if "image_bytes" not in predict.structured_input_signature[1]:
        raise UserError(f"Expected an export that decodes images; Received: {str(folder)!r}, a float-only one.")

    def request(encoded: list[bytes]) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in predict(image_bytes=tf.constant(encoded)).items()}

    return _classify(files, request, top, track)


def predict_remotely(
    server: str, files: Sequence[str], top: int = 5, name: str = "googlenet", track: Track = untracked
) -> Classes:
    """Names the best classes of image files by TF Serving, over gRPC.

    Args:
        server: "grpc://HOST:PORT".
        files: paths of JPEG, PNG, GIF, BMP or WebP images; those that cannot be read are left out with a warning.
        top: classes an image, best first; at most as many as the export names.
        name: of the model there.
        track: wraps the batches, of which it gets the number too, for instance to show progress.

    Returns:
        {path: [(class name, probability), ...]}.

    Raises:
        UserError: a bad address, a server that does not respond or refuses (with its reason), or no file that is an
            image.
    """
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    host, _, port = server.removeprefix("grpc://").rpartition(":")
    if not server.startswith("grpc://") or not host or not port.isdecimal():
        raise UserError(f"Expected a server at grpc://HOST:PORT; Received: {server!r}.")
    with grpc.insecure_channel(f"{host}:{port}", UNLIMITED) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def request(encoded: list[bytes]) -> dict[str, np.ndarray]:
            asked = predict_request(name, "serving_default", {"image_bytes": np.array(encoded, "object")})
            asked.output_filter.extend(("labels", "scores", "status"))
            try:
                response = stub.Predict(asked, timeout=SECONDS)
            except grpc.RpcError as error:
                raise UserError(
                    f"Expected a response of model {name!r} at {server}; "
                    f"Received: {error.code().name}, {' '.join(error.details().split())}."
                ) from None
            return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}

        return _classify(files, request, top, track)


def _classify(
    files: Sequence[str], request: Callable[[list[bytes]], Mapping[str, np.ndarray]], top: int, track: Track
) -> Classes:
    """Sends the files in batches and names the best classes of each."""
    if top < 1:
        raise UserError(f"Expected top to be 1 or more; Received: top={top}.")
    if not files:
        raise UserError("Expected at least one image; Received: none.")
    found: Classes = {}
    failed: dict[str, str] = {}
    batches = [files[at : at + BATCH] for at in range(0, len(files), BATCH)]
    for batch in track(batches, len(batches)):
        encoded = {}
        for file in batch:
            try:
                encoded[file] = Path(file).read_bytes()
            except OSError:
                failed[file] = why_unreadable(file)
        if not encoded:
            continue
        outputs = request(list(encoded.values()))
        columns = (outputs[name] for name in ("status", "labels", "scores"))
        for file, status, labels, scores in zip(encoded, *columns, strict=True):
            if status.decode() == OK:
                best = zip(labels[:top], scores[:top], strict=True)
                found[file] = [(label.decode(), float(score)) for label, score in best]
            else:
                failed[file] = f"which is {status.decode()}"
    warn_of_failures(failed, len(files))
    return found

"""Predictions of an export for image files: on this machine, or by a TF Serving server."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from training.errors import UserError
from training.serving_protocol import OK, predict_request

SECONDS = 60.0  # that a server may take; it may have to load its kernels first
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

Classes = dict[str, list[tuple[str, float]]]


def newest_version(folder: str | os.PathLike[str]) -> Path | None:
    """The SavedModel in a folder, or the one of the highest version in it; None where there is none."""
    versions = [path for path in Path(folder).glob("*") if path.name.isdecimal()]
    places = [Path(folder), *sorted(versions, key=lambda path: -int(path.name))]
    return next((place for place in places if (place / "saved_model.pb").is_file()), None)


def classify(folder: Path, files: Sequence[str], top: int) -> Classes:
    """Names the best classes of image files by an export, which needs nothing of this package for it.

    Args:
        folder: of the SavedModel.
        files: paths of JPEG, PNG, GIF, BMP or WebP images.
        top: classes an image, best first; at most as many as the export names.

    Returns:
        {path: [(class name, probability), ...]}.

    Raises:
        UserError: a float-only export, or a file that is missing or no image (named).
    """
    encoded = _read(files)
    predict = tf.saved_model.load(str(folder)).signatures["serving_default"]
    if "image_bytes" not in predict.structured_input_signature[1]:
        raise UserError(f"Expected an export that decodes images; Received: {str(folder)!r}, a float-only one.")
    outputs = predict(image_bytes=tf.constant(encoded))
    return _named(files, {name: value.numpy() for name, value in outputs.items()}, top)


def predict_remotely(server: str, files: Sequence[str], top: int = 5, name: str = "googlenet") -> Classes:
    """Names the best classes of image files by TF Serving, over gRPC.

    Args:
        server: "grpc://HOST:PORT".
        files: paths of JPEG, PNG, GIF, BMP or WebP images.
        top: classes an image, best first; at most as many as the export names.
        name: of the model there.

    Returns:
        {path: [(class name, probability), ...]}.

    Raises:
        UserError: a bad address, a server that does not respond or refuses (with its reason), or a file that is missing
            or no image (named).
    """
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    host, _, port = server.removeprefix("grpc://").rpartition(":")
    if not server.startswith("grpc://") or not host or not port.isdecimal():
        raise UserError(f"Expected a server at grpc://HOST:PORT; Received: {server!r}.")
    request = predict_request(name, "serving_default", {"image_bytes": np.array(_read(files), "object")})
    request.output_filter.extend(("labels", "scores", "status"))
    with grpc.insecure_channel(f"{host}:{port}", UNLIMITED) as channel:
        try:
            response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=SECONDS)
        except grpc.RpcError as error:
            raise UserError(
                f"Expected a response of model {name!r} at {server}; "
                f"Received: {error.code().name}, {' '.join(error.details().split())}."
            ) from None
    return _named(files, {key: tf.make_ndarray(value) for key, value in response.outputs.items()}, top)


def _read(files: Sequence[str]) -> list[bytes]:
    if not files:
        raise UserError("Expected at least one image; Received: none.")
    encoded = []
    for file in files:
        if not os.path.isfile(file):
            raise UserError(f"Expected an image file; Received: {file!r}, which is no file.")
        encoded.append(Path(file).read_bytes())
    return encoded


def _named(files: Sequence[str], outputs: Mapping[str, np.ndarray], top: int) -> Classes:
    if top < 1:
        raise UserError(f"Expected top to be 1 or more; Received: top={top}.")
    for file, status in zip(files, outputs["status"], strict=True):
        if status.decode() != OK:
            raise UserError(
                f"Expected a JPEG, PNG, GIF, BMP or WebP image; Received: {file!r}, which is {status.decode()}."
            )
    return {
        file: [(label.decode(), float(score)) for label, score in zip(labels[:top], scores[:top], strict=True)]
        for file, labels, scores in zip(files, outputs["labels"], outputs["scores"], strict=True)
    }

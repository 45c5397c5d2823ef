"""Asking an export for the classes of pictures: on this machine, or of a TF Serving server."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:  # imported where needed: TensorFlow for TPUs, which trains and predicts too, goes without it
    from tensorflow_serving.apis import predict_pb2

OK = "ok"  # the status of an image that an export has classified
SECONDS = 60.0  # that a server may take; it may have to load its kernels first
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

Classes = dict[str, list[tuple[str, float]]]


def newest(folder: str | os.PathLike) -> Path | None:
    """The SavedModel in a folder, or the one of the highest version in it; None where there is none."""
    versions = [path for path in Path(folder).glob("*") if path.name.isdecimal()]
    places = [Path(folder), *sorted(versions, key=lambda path: -int(path.name))]
    return next((place for place in places if (place / "saved_model.pb").is_file()), None)


def classify(folder: Path, pictures: Sequence[str], top: int) -> Classes:
    """Names the best classes of picture files by an export, which needs nothing of this package for it.

    Args:
        folder: of the SavedModel.
        pictures: paths of JPEG, PNG, GIF, BMP or WebP files.
        top: classes a picture, best first; at most as many as the export names.

    Returns:
        {path: [(class name, probability), ...]}.

    Raises:
        ValueError: a float-only export, or a file that is missing or no picture (named).
    """
    encoded = _read(pictures)
    answer = tf.saved_model.load(str(folder)).signatures["serving_default"]
    if "image_bytes" not in answer.structured_input_signature[1]:
        raise ValueError(f"Expected an export that decodes pictures; Received: {str(folder)!r}, a float-only one.")
    outputs = answer(image_bytes=tf.constant(encoded))
    return _named(pictures, {name: value.numpy() for name, value in outputs.items()}, top)


def ask(server: str, pictures: Sequence[str], top: int = 5, name: str = "googlenet") -> Classes:
    """Names the best classes of picture files by TF Serving, over gRPC.

    Args:
        server: "grpc://HOST:PORT".
        pictures: paths of JPEG, PNG, GIF, BMP or WebP files.
        top: classes a picture, best first; at most as many as the export names.
        name: of the model there.

    Returns:
        {path: [(class name, probability), ...]}.

    Raises:
        ValueError: a bad address, a server that does not answer or refuses (with its reason), or a file that is missing
            or no picture (named).
    """
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    host, _, port = server.removeprefix("grpc://").rpartition(":")
    if not server.startswith("grpc://") or not host or not port.isdecimal():
        raise ValueError(f"Expected a server at grpc://HOST:PORT; Received: {server!r}.")
    request = predict_request(name, "serving_default", {"image_bytes": np.array(_read(pictures), "object")})
    request.output_filter.extend(("labels", "scores", "status"))
    with grpc.insecure_channel(f"{host}:{port}", UNLIMITED) as channel:
        try:
            response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=SECONDS)
        except grpc.RpcError as error:
            raise ValueError(
                f"Expected an answer of model {name!r} at {server}; "
                f"Received: {error.code().name}, {' '.join(error.details().split())}."
            ) from None
    return _named(pictures, {key: tf.make_ndarray(value) for key, value in response.outputs.items()}, top)


def predict_request(name: str, signature: str, inputs: dict[str, np.ndarray]) -> "predict_pb2.PredictRequest":
    """A request in TF Serving's protocol."""
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, values in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
    return request


def _read(pictures: Sequence[str]) -> list[bytes]:
    if not pictures:
        raise ValueError("Expected at least one picture; Received: none.")
    encoded = []
    for picture in pictures:
        if not os.path.isfile(picture):
            raise ValueError(f"Expected a picture file; Received: {picture!r}, which is no file.")
        encoded.append(Path(picture).read_bytes())
    return encoded


def _named(pictures: Sequence[str], outputs: Mapping[str, np.ndarray], top: int) -> Classes:
    if top < 1:
        raise ValueError(f"Expected top to be 1 or more; Received: top={top}.")
    for picture, status in zip(pictures, outputs["status"], strict=True):
        if status.decode() != OK:
            raise ValueError(
                f"Expected a JPEG, PNG, GIF, BMP or WebP picture; Received: {picture!r}, which is {status.decode()}."
            )
    return {
        picture: [(label.decode(), float(score)) for label, score in zip(labels[:top], scores[:top], strict=True)]
        for picture, labels, scores in zip(pictures, outputs["labels"], outputs["scores"], strict=True)
    }

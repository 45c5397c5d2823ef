"""What exports and their clients agree on: the status of an image, and requests in TF Serving's protocol."""

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:  # imported where needed: TensorFlow for TPUs, which trains and predicts too, has no such package
    from tensorflow_serving.apis import predict_pb2

OK = "ok"  # the status of an image that an export has classified
TOO_LARGE, UNREADABLE, NOT_FINITE = "too large", "unreadable", "not finite"  # the other statuses


def predict_request(name: str, signature: str, inputs: dict[str, np.ndarray]) -> "predict_pb2.PredictRequest":
    """A request in TF Serving's protocol."""
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, values in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
    return request

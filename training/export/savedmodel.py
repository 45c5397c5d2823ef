"""The SavedModel of a network: from encoded images or pixels to classes by name, for TF Serving."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from inception_v1.preprocessing import normalize
from training.data.decoding import MAX_PIXELS, decode, encoded_shape
from training.export import memory
from training.export.export_model import ExportModel
from training.serving_protocol import NOT_FINITE, OK, TOO_LARGE, UNREADABLE, predict_request

LABELS = "labels.txt"
WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")
BATCHING = "batching_params.pbtxt"  # the name that --enable_per_model_batching_parameters looks for
WARM_UP_BATCHES = (1, 8)
PARALLEL = 4  # images of a request that are decoded at a time: the largest take 1 GB each, whatever the number of cores


@memory.released()
def write(folder: Path, network: ExportModel, top: int, float_only: bool) -> dict[str, dict[str, Any]]:
    """Writes the SavedModel.

    Its signatures are `serving_default` (encoded images), `predict_images` (float32 pixels) and
    `predict_images_uint8`; with `float_only` just `serving_default`, of float32 pixels and with probabilities alone, so
    that there are no strings, tables or decoders in it.

    Args:
        folder: exists, with the class names in `labels.txt`.
        network: what to write.
        top: classes an image in `classes`, `labels` and `scores`.
        float_only: for runtimes that cannot decode images.

    Returns:
        {signature: {"inputs" and "outputs": {name: [dtype, shape]}}}.
    """
    module = tf.Module()
    image = tf.TensorSpec((None, *network.shape), tf.float32, "image")
    module.network = tf.function(network, [image]).get_concrete_function()  # one trace, since each holds the weights
    if float_only:
        signatures = {"serving_default": _probabilities(module.network, network)}
    else:
        lines = tf.lookup.TextFileInitializer(
            str(folder / LABELS),
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
        )
        module.labels = tf.lookup.StaticHashTable(lines, default_value="")
        # Outside of a graph TensorFlow lists None as what initializes the table, and warns when it saves that.
        initializers = tf.compat.v1.get_default_graph().get_collection_ref("table_initializer")
        initializers[:] = [operation for operation in initializers if operation is not None]
        signatures = _signatures(module, network, top)
    concrete = {name: function.get_concrete_function() for name, function in signatures.items()}
    tf.saved_model.save(module, str(folder), concrete)
    return {name: _describe(function) for name, function in concrete.items()}


def _probabilities(forward: Callable[[tf.Tensor], dict[str, tf.Tensor]], network: ExportModel) -> Any:
    @tf.function(input_signature=[tf.TensorSpec((None, *network.shape), tf.float32, "images")])
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return forward(normalize(images, network.model.spec.pixels))

    return serving_default


def _signatures(module: tf.Module, network: ExportModel, top: int) -> dict[str, Any]:
    convention = network.model.spec.pixels

    def outputs(images: tf.Tensor, status: tf.Tensor) -> dict[str, tf.Tensor]:
        """What every signature returns, of pixels on the 0-255 scale: nothing but the status where that is not ok."""
        good = (status == OK)[:, None]
        heads = {name: tf.where(good, p, 0.0) for name, p in module.network(normalize(images, convention)).items()}
        scores, classes = tf.math.top_k(heads["probabilities"], top)
        classes = tf.where(good, tf.cast(classes, tf.int64), -1)
        return {"classes": classes, "labels": module.labels.lookup(classes), "scores": scores, "status": status} | heads

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        _check_not_empty(image_bytes)
        images, status = decode_batch(image_bytes, network.size, network.channels)
        return outputs(images, status)

    @tf.function(input_signature=[tf.TensorSpec((None, *network.shape), tf.float32, "images")])
    def predict_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        _check_not_empty(images)
        finite = tf.reduce_all(tf.math.is_finite(images), axis=(1, 2, 3))
        images = tf.where(finite[:, None, None, None], images, 0.0)
        return outputs(images, tf.where(finite, OK, NOT_FINITE))

    @tf.function(input_signature=[tf.TensorSpec((None, *network.shape), tf.uint8, "images")])
    def predict_images_uint8(images: tf.Tensor) -> dict[str, tf.Tensor]:
        _check_not_empty(images)
        return outputs(images, tf.fill(tf.shape(images)[:1], OK))

    functions = (serving_default, predict_images, predict_images_uint8)
    return {function.python_function.__name__: function for function in functions}


def _check_not_empty(batch: tf.Tensor) -> None:
    tf.debugging.Assert(tf.shape(batch)[0] > 0, ["Expected at least one image; Received: none."])


def decode_batch(encoded: tf.Tensor, size: int, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch of encoded images as evaluation decodes them, whatever some of them hold.

    Args:
        encoded: string `(batch,)`.
        size: height and width of the result, pixels.
        channels: 1 (gray) or 3.

    Returns:
        uint8 `(batch, size, size, channels)` (zeros where there is no image), and string `(batch,)`: "ok",
        "too large" (more than 8,192 x 8,192 pixels; such an image is not decoded) or "unreadable".
    """
    images, good = map_with_failures(
        lambda e: decode(e, size, channels), encoded, tf.zeros((size, size, channels), tf.uint8)
    )
    large = tf.cond(tf.reduce_all(good), lambda: tf.zeros_like(good), lambda: _too_large(encoded))
    return images, tf.where(good, OK, tf.where(large, TOO_LARGE, UNREADABLE))


def _too_large(encoded: tf.Tensor) -> tf.Tensor:
    shapes, _ = map_with_failures(encoded_shape, encoded, tf.zeros((2,), tf.int64))
    return tf.reduce_prod(shapes, axis=1) > MAX_PIXELS


def map_with_failures(
    function: Callable[[tf.Tensor], tf.Tensor], values: tf.Tensor, default: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps a function over a batch, `PARALLEL` elements at a time; where it raises, the others still have results.

    Only `tf.data` can continue after an error in a graph.

    Args:
        function: from one element to a tensor like `default`.
        values: `(batch, ...)`.
        default: result where the function raises; zeros.

    Returns:
        The results `(batch, ...)`, and bool `(batch,)`: whether there is one.
    """
    count = tf.size(values, tf.int64)
    ds = tf.data.Dataset.from_tensor_slices(values).enumerate()
    ds = ds.map(lambda place, value: (place, function(value)), PARALLEL).ignore_errors()
    ds = ds.concatenate(tf.data.Dataset.from_tensors((count, default)))  # there is one batch whatever happens
    places, results = ds.batch(count + 1).get_single_element()
    places, results = places[:-1, None], results[:-1]
    shape = tf.concat([count[None], tf.shape(default, tf.int64)], 0)
    done = tf.scatter_nd(places, tf.ones_like(places[:, 0]), count[None]) > 0
    return tf.ensure_shape(tf.scatter_nd(places, results, shape), (None, *default.shape)), done


def write_warm_up(folder: Path, network: ExportModel, name: str, float_only: bool) -> None:
    """Writes requests that TF Serving processes when it loads the model, so that no user waits for the first ones.

    Args:
        folder: of the SavedModel.
        network: what it holds.
        name: of the model.
        float_only: whether it takes pixels alone.
    """
    gray = np.full((1, *network.shape), 127, "uint8")
    if float_only:
        requests = [("serving_default", "images", np.repeat(gray, n, 0).astype("float32")) for n in WARM_UP_BATCHES]
    else:
        image = tf.io.encode_jpeg(gray[0]).numpy()
        requests = [("serving_default", "image_bytes", np.array([image] * n, "object")) for n in WARM_UP_BATCHES]
        requests += [("predict_images", "images", gray.astype("float32")), ("predict_images_uint8", "images", gray)]
    (folder / WARM_UP).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / WARM_UP)) as writer:
        for signature, key, values in requests:
            request = predict_request(name, signature, {key: values})
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def models_config(name: str) -> str:
    """The text of a `--model_config_file` for a server that sees the exports under /models, as in TF's container."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=f"/models/{name}", model_platform="tensorflow")
    return text_format.MessageToString(config)


def batching_parameters(largest: int) -> str:
    """The text of TF Serving's batching parameters: requests wait up to 2 ms for others to fill a batch."""
    numbers = {"max_batch_size": largest, "batch_timeout_micros": 2000, "max_enqueued_batches": 100}
    return "".join(f"{name} {{ value: {number} }}\n" for name, number in numbers.items())


def _describe(function: Any) -> dict[str, dict[str, list[Any]]]:
    inputs = {name: spec for name, spec in function.structured_input_signature[1].items()}
    inputs |= {spec.name: spec for spec in function.structured_input_signature[0]}
    return {
        side: {name: [tensor.dtype.name, ["N", *tensor.shape[1:]]] for name, tensor in sorted(tensors.items())}
        for side, tensors in (("inputs", inputs), ("outputs", function.structured_outputs))
    }

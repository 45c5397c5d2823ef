"""A trained network as every export computes it: its weights are constants, and its outputs are probabilities."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from inception_v1.fold_batchnorm import fold_batchnorm
from inception_v1.preprocessing import constants, normalize
from inception_v1.spec import check_class_names
from training import transfer
from training.errors import UserError
from training.precision import precision

DEFAULT_SIZE = 224  # of networks that take any
LAST_BLOCK = "inception_5b"  # whose feature maps the main head averages
FEATURES = "features"  # their name as an output


class ExportModel:
    """What exports are made from. A call maps float32 `(batch, size, size, channels)`, normalized, to {output: float32
    `(batch, classes)` probabilities}, and is meant for functions that are traced: each one copies the weights.

    Args:
        model: the trained network; it stays as it is.
        labels: names of its classes in order.
        keep_aux: whether the auxiliary heads are outputs too.

    Attributes:
        model: the trained network, at a fixed size.
        net: the same for inference alone (see `fold_batchnorm`).
        labels: the argument.
        outputs: {name of the output: head}, "probabilities" being the main head's.
        size: height and width of the input, pixels.
        channels: 1 (gray) or 3 (RGB).
        mean: float32 `(channels,)` on the 0-255 scale.
        std: likewise.

    Raises:
        UserError: Keras on another backend than TensorFlow, a network without the heads asked for, for other than
            square images or other than 1 or 3 channels, or labels that are no names of its classes.
    """

    def __init__(self, model: GoogLeNet, labels: Sequence[str], keep_aux: bool = False) -> None:
        if keras.backend.backend() != "tensorflow":
            raise UserError(f"Expected Keras on TensorFlow for an export; Received: {keras.backend.backend()!r}.")
        height, width, self.channels = model.spec.input_shape
        if height != width:
            raise UserError(f"Expected a network for square images; Received: {height}x{width}.")
        labels = list(check_class_names(labels, model.spec.classes))
        self.size = height or DEFAULT_SIZE
        self.mean, self.std = constants(model.spec.pixels, self.channels)
        self.model, self.labels = _of_size(model, self.size), labels
        self.net = fold_batchnorm(self.model, keep_aux)
        heads = self.model.spec.heads if keep_aux else ("main",)
        self.outputs = {"probabilities" if head == "main" else head: head for head in heads}
        features = self.net.get_layer(LAST_BLOCK).output
        self._with_features = keras.Model(self.net.input, {**self.net.output, FEATURES: features})

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return (self.size, self.size, self.channels)

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = _with_constants(self.net, images)
        return {name: tf.nn.softmax(logits[head]) for name, head in self.outputs.items()}

    def with_features(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same, and as "features" the last feature maps, float32 `(batch, rows, columns, channels)`: their mean is
        what the main head's classifier sees."""
        found = _with_constants(self._with_features, images)
        heads = {name: tf.nn.softmax(found[head]) for name, head in self.outputs.items()}
        return heads | {FEATURES: found[FEATURES]}

    def of_pixels(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same of float32 pixels on the 0-255 scale, normalized by operations that every converter takes."""
        return self((pixels - self.mean) * (1 / self.std))

    def expected(self, pixels: np.ndarray, batch: int = 32) -> dict[str, np.ndarray]:
        """Predictions of the trained Keras network itself for pixels: the reference for every export.

        Args:
            pixels: uint8 `(images, size, size, channels)`.
            batch: images at a time.
        """
        convention = self.model.spec.pixels
        heads = keras.Model(
            self.model.input,
            {name: self.model.get_layer(f"{head}_logits").output for name, head in self.outputs.items()},
        )
        step = tf.function(lambda images: {name: tf.nn.softmax(z) for name, z in heads(images, training=False).items()})
        rows = [
            {name: p.numpy() for name, p in step(normalize(tf.constant(pixels[i : i + batch]), convention)).items()}
            for i in range(0, len(pixels), batch)
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in self.outputs}

    def layers(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """What the trained Keras network computes after each layer that an export also has, from the image on."""
        kept = [layer for layer in self.net.layers if not isinstance(layer, keras.layers.InputLayer)]
        shown = [
            layer.name for layer in kept if not isinstance(layer, keras.layers.Conv2D | keras.layers.ZeroPadding2D)
        ]
        order = [layer.name for layer in self.model.layers if layer.name in shown]
        model = keras.Model(self.model.input, {name: self.model.get_layer(name).output for name in order})
        found = model(normalize(tf.constant(pixels), self.model.spec.pixels), training=False)
        return {name: np.asarray(found[name]) for name in order}


def _with_constants(net: keras.Model, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """The outputs of a network whose weights are constants, not variables: a function that is made of it stores them
    once, and kernels may pack them once."""
    with tf.init_scope():  # where they have values, also while a function is traced
        weights = [[v.numpy() for v in part] for part in (net.trainable_variables, net.non_trainable_variables)]
    found, _ = net.stateless_call(*weights, images, training=False)
    return found


def _of_size(model: GoogLeNet, size: int) -> GoogLeNet:
    """A network in float32 that takes this size and no other; the model itself where it is one."""
    fixed = (size, size, model.spec.input_shape[2])
    if model.spec.input_shape == fixed and {layer.compute_dtype for layer in model.layers} == {"float32"}:
        return model
    with precision("float32"):
        copy = GoogLeNet(**transfer.with_arguments(model.spec, input_shape=fixed).to_dict())
    copy.set_weights(model.get_weights())
    return copy

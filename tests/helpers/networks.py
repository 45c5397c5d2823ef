"""Networks as if trained."""

import keras
import numpy as np

from inception_v1 import build_googlenet
from inception_v1.preprocessing import normalize
from tests.helpers.images import patch_images

# Whether tests run networks eagerly: JAX compiles each operation by itself, which takes several times as long as to
# compile a whole network.
EAGERLY = keras.backend.backend() == "tensorflow"


def trained_network(variant, **arguments):
    """A network as if trained: its normalizations fit images, and its main logits differ by about 1 between them."""
    keras.utils.set_random_seed(0)  # a fixture of a module is made before that of each test sets it
    arguments = {"input_shape": (63, 64, 3), "classes": 7, "width_multiplier": 0.1, "aux": False} | arguments
    model, random = build_googlenet(variant, **arguments), np.random.default_rng(0)
    images = normalize(patch_images(32, *model.spec.input_shape), model.spec.pixels)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # the running statistics become those of these images
        layer.beta.assign(random.normal(0, 0.3, layer.beta.shape))
        if layer.scale:
            layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape))
    model(images, training=True)
    for layer in norms:  # channels that hardly vary would turn rounding into signal
        layer.moving_variance.assign(np.maximum(layer.moving_variance, np.mean(layer.moving_variance)))
    if model.spec.include_top:
        logits = np.asarray(logits_of(model, images, ["main"])["main"])
        last, scale = model.get_layer("main_logits"), 1 / logits.std(axis=0).mean()
        last.set_weights([last.kernel * scale, last.bias * scale - logits.mean(axis=0) * scale])
    return model


def call(model, images):
    """The outputs of a model, as arrays: eagerly where that is faster."""
    outputs = model(images) if EAGERLY else model.predict_on_batch(np.asarray(images))
    return keras.tree.map_structure(np.asarray, outputs)


def logits_of(model, images, heads):
    return call(keras.Model(model.input, {head: model.get_layer(f"{head}_logits").output for head in heads}), images)

"""TF-slim's own `nets.inception_v1` and its checkpoints, run by TensorFlow."""

import sys

import numpy as np

from tests.oracles import random_array

FAMILY, EXECUTOR, VARIANT, SCALE = "TF-slim", "tf_slim", "slim", 1.0
SPREAD = 1 / 16


def import_tf_slim():
    """The module `tf_slim`, which asks for modules that tf-keras moved."""
    import tf_keras.src.legacy_tf_layers as moved
    from tf_keras.src.legacy_tf_layers import base, convolutional, core, normalization, pooling

    sys.modules.setdefault("tf_keras.legacy_tf_layers", moved)
    for module in (base, convolutional, core, normalization, pooling):
        sys.modules.setdefault(module.__name__.replace(".src", ""), module)
    import tf_slim

    return tf_slim


def _network(images):
    """Logits of the published function."""
    import tensorflow as tf

    tf_slim = import_tf_slim()
    from tf_slim.nets import inception_v1

    with tf_slim.arg_scope(inception_v1.inception_v1_arg_scope()):
        logits, ends = inception_v1.inception_v1(images, num_classes=1001, is_training=False, spatial_squeeze=False)
    if images.shape[1:3] == (224, 224):
        return tf.squeeze(logits, (1, 2))
    # Its 7x7 pool leaves one position at 224 only; elsewhere the whole map is pooled, as ours does.
    weights = {v.op.name.rpartition("/")[2]: v for v in tf.compat.v1.global_variables("InceptionV1/Logits")}
    return tf.reduce_mean(ends["Mixed_5c"], (1, 2)) @ weights["weights"][0, 0] + weights["biases"]


def write(folder, version: int = 2):
    """A checkpoint by TensorFlow's saver: version 1 is one file, as published, 2 is several."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        _network(v1.placeholder(tf.float32, (None, 224, 224, 3)))
        v1.train.get_or_create_global_step()
        values = {}
        for variable in v1.global_variables():
            if variable.dtype.base_dtype == tf.float32:
                name = variable.op.name
                array = random_array(name, tuple(variable.shape), channels_last=True)
                values[variable.initializer.inputs[1]] = array * (SPREAD if name.endswith("0c_1x1/weights") else 1)
        session.run(v1.global_variables_initializer(), values)
        saver = v1.train.Saver(write_version=version)
        return type(folder)(saver.save(session, str(folder / f"inception_v1.v{version}.ckpt"), write_meta_graph=False))


def run(path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Logits by head."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        placeholder = v1.placeholder(tf.float32, (None, *images.shape[1:]))
        logits = _network(placeholder)
        v1.train.Saver().restore(session, str(path))
        return {"main": session.run(logits, {placeholder: images})}

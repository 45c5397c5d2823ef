"""What can be tested of TPU training without a TPU: a clear error, and a step that XLA compiles with static shapes."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf

from inception_v1 import Spec
from training.data import sources
from training.data.pipeline import Batches
from training.distribution.choose import make_strategy
from training.presets import PRESETS
from training.train import compile_model

ON_HOST = re.compile(r"custom-call|infeed|outfeed|send\(|recv\(|py_func", re.IGNORECASE)  # not on a TPU


def test_no_tpu_is_a_users_error():
    with pytest.raises(
        ValueError, match=r"Expected a TPU for strategy 'tpu'; Received: none \(.+\)\. .*KERAS_BACKEND=jax"
    ):
        make_strategy("tpu")


@pytest.mark.parametrize("variant", ["paper", "batchnorm"])
def test_a_step_compiles_with_static_shapes_and_nothing_for_the_host(variant):
    """The HLO of a whole training step: forward, losses, gradients, the recipe's SGD with all of its options."""
    recipe = dataclasses.replace(PRESETS["paper"], source="digits", average=0.9, nesterov=True, weight_decay=1e-4)
    spec = Spec(variant, input_shape=(32, 32, 1), classes=10, width_multiplier=0.1, aux=variant == "paper")
    model = compile_model(recipe, spec, 2, {head: 1.0 if head == "main" else 0.3 for head in spec.heads})

    def step(images, labels):
        with tf.GradientTape() as tape:
            predictions = model(images, training=True)
            loss = model.compute_loss(x=images, y=labels, y_pred=predictions, training=True)
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return loss, model.compute_metrics(images, labels, predictions)

    inputs = tf.TensorSpec((8, 32, 32, 1)), tf.TensorSpec((8,), tf.int64)
    function = tf.function(step, jit_compile=True)
    operations = function.get_concrete_function(*inputs).graph.get_operations()
    scratch = {op.outputs[5].name for op in operations if op.type == "FusedBatchNormV3"}  # cuDNN's; XLA has none
    outputs = [out for op in operations for out in op.outputs if not {out.name, *(i.name for i in op.inputs)} & scratch]
    unknown = [out.name for out in outputs if not out.shape.is_fully_defined()]
    hlo = function.experimental_get_compiler_ir(*inputs)(stage="hlo")
    assert "convolution" in hlo
    assert not unknown
    assert "<=" not in hlo  # a bounded dynamic dimension
    assert not ON_HOST.findall(hlo)


def test_batches_for_training_have_static_shapes(data_dir):
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, mixup=0.2, cutmix=1.0, erase=0.5, batch_size=60)
    images, labels = Batches(sources.load(recipe).train, recipe).training().element_spec
    assert images.shape.as_list() == [60, 32, 32, 1]
    assert labels.shape.as_list() == [60, 10]
    assert np.issubdtype(labels.dtype.as_numpy_dtype, np.floating)

import keras
import numpy as np
import pytest
from keras import ops

from inception_v1.tensorflow_layers import BatchNormalization, Conv2D, MaxPooling2D, ReLU, ZeroPadding2D
from tests.helpers.gradients import gradient_of

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize("shape", [(8, 5, 4, 16), (3, 1, 1, 8), (1, 2, 1, 8)])
@pytest.mark.parametrize("arguments", [{}, {"scale": False}, {"momentum": 0.5, "epsilon": 0.1, "center": False}])
def test_fused_batch_normalization_equals_keras(shape, arguments):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) * rng.uniform(0.1, 3, shape[-1]) + rng.normal(size=shape[-1])).astype("float32")
    weight = rng.normal(size=shape).astype("float32")
    ours, theirs = BatchNormalization(**arguments), keras.layers.BatchNormalization(**arguments)
    for layer in (ours, theirs):
        layer.build(shape)
    values = [rng.uniform(0.5, 2, w.shape) for w in theirs.weights]
    ours.set_weights(values), theirs.set_weights(values)
    for training in (False, True, False):  # the second False sees the statistics that True left
        np.testing.assert_allclose(ours(x, training=training), theirs(x, training=training), rtol=1e-5, atol=1e-5)
    for own, their in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(own, their, rtol=1e-6, atol=1e-7, err_msg=own.name)
    for training in (False, True):
        gradients = [gradient_of(lambda x, n=n, t=training: n(x, training=t), x, weight) for n in (ours, theirs)]
        np.testing.assert_allclose(*gradients, rtol=1e-4, atol=2e-4)


def test_fused_batch_normalization_keeps_frozen_statistics_and_half_precision():
    layer = BatchNormalization(dtype="mixed_bfloat16")
    y = layer(ops.ones((2, 3, 3, 8)), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(layer.moving_mean.dtype) == "float32"
    before = [np.array(w) for w in layer.weights]
    layer.trainable = False
    layer(ops.ones((2, 3, 3, 8)) * 5, training=True)
    for old, new in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("shape", [(4, 8), (2, 3, 8), (2, 8, 3, 3)])
def test_fused_batch_normalization_takes_what_keras_takes(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    axis = 1 if shape == (2, 8, 3, 3) else -1
    expected = keras.layers.BatchNormalization(axis)(x, training=True)
    np.testing.assert_allclose(BatchNormalization(axis)(x, training=True), expected, atol=1e-6)


def weight_gradients(call, layers, x, weight):
    """The gradients of sum(call(x) * weight) for x and the weights in a graph of TensorFlow, and its operations."""
    import tensorflow as tf

    variables = [variable.value for layer in layers for variable in layer.trainable_weights]
    marks = []

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
        marks.append(len(y.graph.get_operations()))
        return tape.gradient(y, [x, *variables], tf.cast(weight, y.dtype))

    found = gradients(tf.constant(x))
    operations = gradients.get_concrete_function(tf.constant(x)).graph.get_operations()
    return found, operations[: marks[-1]], operations[marks[-1] :]


@pytest.mark.parametrize("arguments", [{}, {"use_bias": False, "activation": "relu"}, {"kernel_size": 3, "strides": 2}])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (1, 1, 1, 2)])
def test_convolution_equals_keras(shape, arguments):
    arguments = {"filters": 7, "kernel_size": 1, "padding": "same", **arguments}
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype("float32")
    ours, theirs = Conv2D(**arguments), keras.layers.Conv2D(**arguments)
    for layer in (ours, theirs):
        layer.build(shape)
    values = [rng.normal(size=w.shape) for w in theirs.weights]
    ours.set_weights(values), theirs.set_weights(values)
    for training in (False, True):
        np.testing.assert_allclose(ours(x, training=training), theirs(x), rtol=1e-5, atol=1e-5)
    weight = rng.normal(size=theirs(x).shape).astype("float32")
    gradients = [gradient_of(lambda x, n=n: n(x, training=True), x, weight) for n in (ours, theirs)]
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-5)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        (own, *_), (their, *_) = (
            weight_gradients(lambda x, n=n: n(x, training=True), [n], x, weight) for n in (ours, theirs)
        )
        for pair in zip(own, their, strict=True):
            np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-5)
        graph = tf.function(lambda x: ours(x, training=False)).get_concrete_function(tf.TensorSpec(shape)).graph
        kinds = {operation.type for operation in graph.get_operations()}
        assert "Conv2D" in kinds
        assert "IdentityN" not in kinds  # which would separate the convolution from the normalization fused with it


def chain(of, dtype="float32"):
    """Layers as a block and the way to it have them, ours or Keras' own: a call, and the layers."""
    normalization = BatchNormalization if of is ours_too else keras.layers.BatchNormalization
    convolution, rectifier, pool, padding = of
    layers = {
        name: layer
        for k in (3, 1, 5)
        for name, layer in {
            f"conv{k}": convolution(6, k, padding="same", use_bias=False, dtype=dtype),
            f"norm{k}": normalization(dtype=dtype),
            f"relu{k}": rectifier(dtype=dtype),
        }.items()
    }
    strided, still = pool(3, 2, "same", dtype=dtype), pool(3, 1, "same", dtype=dtype)
    padded = padding(1, dtype=dtype)

    given = {"training": True} if of is ours_too else {}  # which Keras' own do not take

    def unit(x, k):
        x = layers[f"norm{k}"](layers[f"conv{k}"](x, **given), training=True)
        return layers[f"relu{k}"](x, **given)

    def call(x):
        x = strided(padded(unit(unit(padded(x, **given), 3), 5), **given), **given)
        return unit(still(x, **given), 1)

    return call, list(layers.values())


ours_too = (Conv2D, ReLU, MaxPooling2D, ZeroPadding2D)
keras_own = tuple(getattr(keras.layers, layer.__name__) for layer in ours_too)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends run Keras' own code")
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-4), ("mixed_bfloat16", 0.1)])
def test_rematerialized_activations_give_the_same_gradients(dtype, rtol):
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(size=(4, *shape)).astype("float32") for shape in ((9, 8, 3), (7, 6, 6)))
    (own, own_layers), (their, their_layers) = chain(ours_too, dtype), chain(keras_own, dtype)
    np.testing.assert_array_equal(own(x).shape, their(x).shape)
    for a, b in zip(own_layers, their_layers, strict=True):
        a.set_weights(b.get_weights())
    found, forward, backward = weight_gradients(own, own_layers, x, weight)
    expected, keras_forward, keras_backward = weight_gradients(their, their_layers, x, weight)
    for pair in zip(found, expected, strict=True):
        a, b = (np.asarray(ops.cast(value, "float32")) for value in pair)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b).max(), 1))
    assert {"Relu", "MaxPool", "Pad"} <= kept(keras_forward, keras_backward)
    assert kept(forward, backward) == {"MaxPool"}  # the strided one
    made = [operation for operation in backward if operation.type in KINDS and not reads(operation, backward)]
    assert {operation.type for operation in made} == KINDS - {"Relu"}  # which reads a normalization recomputed before
    assert all(waits(operation) for operation in made)  # else they would run in the forward pass
    assert len([operation for operation in made if operation.type == "FusedBatchNormV3"]) == 3  # once each
    read = {operation for other in backward if other.type == "Identity" for operation in other.control_inputs}
    assert {operation for operation in backward if operation.type == "Conv2DBackpropInput"} <= read


KINDS = {"Relu", "MaxPool", "Pad", "FusedBatchNormV3"}


def reads(operation, others):
    return any(tensor.op in others and tensor.op.type in KINDS for tensor in operation.inputs)


def waits(operation):
    """Whether an operation, or a constant made for it, waits for another."""
    return bool(operation.control_inputs) or any(tensor.op.control_inputs for tensor in operation.inputs)


def kept(forward, backward):
    """Kinds of the activations of a forward pass that the backward pass reads."""
    forward, kinds = set(forward), set()
    for operation in backward:
        for tensor in operation.inputs:
            while tensor.op.type in ("Identity", "IdentityN"):
                tensor = tensor.op.inputs[tensor.value_index]
            if tensor.op in forward and tensor.value_index == 0:  # the others of a normalization are its statistics
                kinds.add(tensor.op.type)
    return kinds & KINDS


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends run Keras' own code")
def test_activations_are_rematerialized_in_every_graph_of_a_gradient():
    import tensorflow as tf

    x, weight = (
        np.random.default_rng(0).normal(size=(4, *shape)).astype("float32") for shape in ((9, 8, 3), (7, 6, 6))
    )
    call, layers = chain(ours_too)
    call(x)
    within, *_ = weight_gradients(call, layers, x, weight)
    forward = tf.function(call)
    with tf.GradientTape(persistent=True) as tape:  # the backward pass is a graph of its own
        x = tf.constant(x)
        tape.watch(x)
        loss = tf.reduce_sum(forward(x) * weight)
    for _ in range(2):
        np.testing.assert_allclose(tape.gradient(loss, x), within[0], rtol=1e-4, atol=1e-5)

    @tf.function
    def twice(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            loss = tf.reduce_sum(call(x) * weight)
            more = 2 * loss
        return tape.gradient(loss, x), tape.gradient(more, x)

    single, double = twice(x)
    np.testing.assert_allclose(double, 2 * single, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends run Keras' own code")
def test_the_gradient_of_the_first_kernel_needs_no_gradient_of_the_images():
    import tensorflow as tf

    padding, convolution = ZeroPadding2D(3), Conv2D(4, 7, strides=2, input_gradient=False)
    convolution.build((1, 15, 15, 3))

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            y = convolution(padding(x, training=True), training=True)
        return tape.gradient(y, convolution.kernel.value)

    graph = gradients.get_concrete_function(tf.TensorSpec((1, 9, 9, 3))).graph
    needed, todo = set(), [tensor.op for tensor in graph.outputs]
    while todo:
        operation = todo.pop()
        if operation not in needed:
            needed.add(operation)
            todo += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    kinds = {operation.type for operation in needed}
    assert "Conv2DBackpropFilter" in kinds
    assert "Conv2DBackpropInput" not in kinds


def test_layers_that_save_memory_reload_and_keep_half_precision():
    layer = keras.layers.deserialize(keras.layers.serialize(Conv2D(4, 1, activation="relu", name="reduce")))
    assert (type(layer), layer.filters, layer.activation) == (Conv2D, 4, keras.activations.relu)
    for own in (
        Conv2D(4, 1, dtype="mixed_bfloat16"),
        MaxPooling2D(2, dtype="mixed_bfloat16"),
        ReLU(dtype="bfloat16"),
        ZeroPadding2D(1, dtype="bfloat16"),
    ):
        again = keras.layers.deserialize(keras.layers.serialize(own))
        half = again(ops.ones((1, 2, 2, 3), "bfloat16"), training=True)
        assert (type(again), keras.backend.standardize_dtype(half.dtype)) == (type(own), "bfloat16")

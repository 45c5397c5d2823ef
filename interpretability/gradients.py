"""Values and gradients of compiled functions: the one file that knows which backend Keras has."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from inception_v1.errors import UserError

Network = Callable[[Any], Any]
Function = Callable[..., tuple[Any, Any]]  # (network, arrays, *others) to (scalar, more)
Compiled = Callable[..., tuple[Any, Any, list[Any]]]  # (arrays, *others) to (scalar, more, gradients)


def value_and_gradient(function: Function, model: keras.Model, any_shape: bool = False) -> Compiled:
    """Compiles a function of arrays and a network together with its gradient.

    Args:
        function: maps `(network, arrays, *others)` to a scalar and whatever else it computes. `network` calls `model`
            for inference. `others` are nested lists and tuples of arrays.
        model: the network.
        any_shape: whether the shapes of `arrays` change between calls as well, all but the last axis.

    Returns:
        A function from `(arrays, *others)` to the scalar, the rest, and the scalar's gradient by each of `arrays`. On
        TensorFlow it is traced once, whatever the shapes of `others`; JAX compiles it for each of them.

    Raises:
        UserError: Keras on another backend.
    """
    check_backend()
    return _of_jax(function, model) if keras.backend.backend() == "jax" else _of_tensorflow(function, model, any_shape)


def inference(model: keras.Model) -> Callable[[Any], Any]:
    """A compiled function from a batch to what `model` computes of it for inference, as NumPy arrays.

    Of a model with several inputs the batch is a list. Unlike `predict_on_batch` it is traced once for batches of all
    sizes on TensorFlow.
    """
    if keras.backend.backend() == "jax":
        import jax

        step = jax.jit(lambda weights, batch: model.stateless_call(*weights, batch, training=False)[0])
        return lambda batch: jax.tree.map(np.asarray, step(_weights_of(model), batch))
    import tensorflow as tf

    signature = [tf.nest.map_structure(lambda one: tf.TensorSpec(one.shape, tf.float32), model.input)]
    traced = tf.function(functools.partial(model, training=False), input_signature=signature, autograph=False)

    def call(batch: Any) -> Any:
        tensors = tf.nest.map_structure(lambda one: tf.convert_to_tensor(one, tf.float32), batch)
        return tf.nest.map_structure(np.asarray, traced(tensors))

    return call


def directional_derivative(model: keras.Model) -> Callable[[Sequence[Any], Sequence[Any]], np.ndarray]:
    """A function from inputs of `model` and changes of them to the change of its output, to first order.

    One pass in forward mode (a Jacobian-vector product), whatever the number of outputs.

    Raises:
        UserError: Keras on another backend.
    """
    check_backend()
    if keras.backend.backend() == "jax":
        import jax

        def change(weights: Any, inputs: Any, changes: Any) -> Any:
            return jax.jvp(lambda *x: model.stateless_call(*weights, list(x), training=False)[0], inputs, changes)[1]

        compiled = jax.jit(change)
        return lambda inputs, changes: np.asarray(compiled(_weights_of(model), tuple(inputs), tuple(changes)))
    import tensorflow as tf

    def change_of_output(inputs: Sequence[Any], changes: Sequence[Any]) -> np.ndarray:
        inputs, changes = ([tf.convert_to_tensor(x, tf.float32) for x in part] for part in (inputs, changes))
        # Not in a tf.function, where TensorFlow 2.21 returns other values for a whole network.
        with tf.autodiff.ForwardAccumulator(inputs, changes) as accumulator:
            output = model(inputs, training=False)
        return np.asarray(accumulator.jvp(output, unconnected_gradients="zero"))

    return change_of_output


def check_backend() -> None:
    """Raises UserError unless Keras is on a backend with gradients here."""
    if (backend := keras.backend.backend()) not in ("tensorflow", "jax"):
        raise UserError(f"Expected Keras on TensorFlow or JAX; Received: {backend!r}.")


def _of_tensorflow(function: Function, model: keras.Model, any_shape: bool) -> Compiled:
    import tensorflow as tf

    def network(inputs: Any) -> Any:
        return model(inputs, training=False)

    def step(arrays: Sequence[Any], others: Sequence[Any]) -> tuple[Any, Any, list[Any]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(arrays)
            value, more = function(network, arrays, *others)
        return value, more, tape.gradient(value, arrays, unconnected_gradients="zero")

    traced: list[Any] = []

    def call(arrays: Sequence[Any], *others: Any) -> tuple[Any, Any, list[Any]]:
        arrays, others = tf.nest.map_structure(tf.convert_to_tensor, (list(arrays), list(others)))
        if not traced:
            shapes = [[None] * (a.shape.rank - 1) + [a.shape[-1]] if any_shape else a.shape for a in arrays]
            fixed = [tf.TensorSpec(shape, array.dtype) for shape, array in zip(shapes, arrays, strict=True)]
            free = tf.nest.map_structure(lambda t: tf.TensorSpec([None] * t.shape.rank, t.dtype), others)
            # Of a partial, since TensorFlow counts the traces of a plain function over all calls, and warns.
            traced.append(tf.function(functools.partial(step), input_signature=(fixed, free), autograph=False))
        return traced[0](arrays, others)

    return call


def _of_jax(function: Function, model: keras.Model) -> Compiled:
    import jax

    def value(arrays: Any, weights: Any, others: Any) -> Any:
        def network(inputs: Any) -> Any:
            return model.stateless_call(*weights, inputs, training=False)[0]

        return function(network, arrays, *others)

    compiled = jax.jit(jax.value_and_grad(value, has_aux=True))

    def call(arrays: Sequence[Any], *others: Any) -> tuple[Any, Any, list[Any]]:
        (scalar, more), gradients = compiled(list(arrays), _weights_of(model), others)
        return scalar, more, gradients

    return call


def _weights_of(model: keras.Model) -> list[list[Any]]:
    return [[v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)]

"""Values and gradients of compiled functions: the one file that knows which backend Keras has."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from inception_v1.errors import UserError

Network = Callable[[Any], Any]
Function = Callable[..., tuple[Any, Any]]  # (network, arrays, *others) to (scalar, more)
Compiled = Callable[..., tuple[Any, Any, list[Any]]]  # (arrays, *others) to (scalar, more, gradients)


def value_and_gradient(function: Function, model: keras.Model) -> Compiled:
    """Compiles a function of arrays and a network together with its gradient.

    Args:
        function: maps `(network, arrays, *others)` to a scalar and whatever else it computes. `network` calls `model`
            for inference. `others` are nested lists and tuples of arrays.
        model: the network.

    Returns:
        A function from `(arrays, *others)` to the scalar, the rest, and the scalar's gradient by each of `arrays`. On
        TensorFlow it is traced once, whatever the shapes of `others`; JAX compiles it for each of them.

    Raises:
        UserError: Keras on another backend.
    """
    check_backend()
    return _of_jax(function, model) if keras.backend.backend() == "jax" else _of_tensorflow(function, model)


def check_backend() -> None:
    """Raises UserError unless Keras is on a backend with gradients here."""
    if (backend := keras.backend.backend()) not in ("tensorflow", "jax"):
        raise UserError(f"Expected Keras on TensorFlow or JAX; Received: {backend!r}.")


def _of_tensorflow(function: Function, model: keras.Model) -> Compiled:
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
            fixed = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
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
        parts = (model.trainable_variables, model.non_trainable_variables)
        weights = [[variable.value for variable in part] for part in parts]
        (scalar, more), gradients = compiled(list(arrays), weights, others)
        return scalar, more, gradients

    return call

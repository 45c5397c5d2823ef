"""Numbers and parts of byte strings, read within a TensorFlow graph. Beyond a string's end are zeros."""

from collections.abc import Callable

import tensorflow as tf

# Decorates a function of one encoded image for a branch that few images take. Inlined, its many small operations would
# cost time also where the condition leaves it out. Nothing in it may fail: a failure in such a graph cancels what runs
# beside it, and where that is reported first the caller sees CancelledError, which `ignore_errors` does not ignore.
graph_of_its_own = tf.function(
    autograph=False, input_signature=[tf.TensorSpec((), tf.string)], experimental_attributes={"_noinline": True}
)


def part(encoded: tf.Tensor, start: int | tf.Tensor, end: int | tf.Tensor) -> tf.Tensor:
    """The bytes from `start` to `end`, as far as there are any."""
    length = tf.cast(tf.strings.length(encoded), tf.int64)
    start = tf.minimum(tf.cast(start, tf.int64), length)
    return tf.strings.substr(encoded, start, tf.maximum(tf.cast(end, tf.int64) - start, 0))


def starts(encoded: tf.Tensor, at: int | tf.Tensor, magic: bytes) -> tf.Tensor:
    """Whether `magic` is at a position."""
    return part(encoded, at, at + len(magic)) == magic


def to_bytes(encoded: tf.Tensor, at_least: int) -> tf.Tensor:
    """int64 `(n,)` values, padded with zeros at the end."""
    values = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int64)
    return tf.pad(values, [[0, tf.maximum(at_least - tf.size(values), 0)]])


def number(data: tf.Tensor, first: int | tf.Tensor, count: int) -> tf.Tensor:
    """int64 of `count` bytes, the lowest first; beyond the end are zeros."""
    at = tf.cast(first, tf.int64) + tf.range(count, dtype=tf.int64)
    size = tf.size(data, tf.int64)
    values = tf.where(at < size, tf.gather(data, tf.minimum(at, size - 1)), 0)
    return tf.reduce_sum(values * 256 ** tf.range(count, dtype=tf.int64))


def letters(value: tf.Tensor, count: int) -> tf.Tensor:
    """The bytes of a number as a string, the lowest first."""
    values = value // 256 ** tf.range(count, dtype=tf.int64) % 256
    return tf.strings.reduce_join(tf.gather(tf.constant([bytes([i]) for i in range(256)]), values))


def walk(
    at: int | tf.Tensor,
    go_on: Callable[[tf.Tensor], tf.Tensor],
    following: Callable[[tf.Tensor], tf.Tensor],
    steps: int | None = None,
) -> tf.Tensor:
    """The first position from `at`, each leading to the next, where `go_on` is false, or the one after `steps`."""
    loop = tf.while_loop(go_on, lambda at: [following(at)], [tf.cast(at, tf.int64)], maximum_iterations=steps)
    return tf.nest.flatten(loop)[0]

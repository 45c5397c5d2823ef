"""Numbers and parts of byte strings, read within a TensorFlow graph, in few operations: each operation costs time
whenever a dataset or a served model sets up its graph."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

# Decorates a function of one encoded image for a branch that few images take. Inlined, its many small operations would
# cost time also where the condition leaves it out. Nothing in it may fail: a failure in such a graph cancels what runs
# beside it, and where that is reported first the caller sees CancelledError, which `ignore_errors` does not ignore.
graph_of_its_own = tf.function(
    autograph=False, input_signature=[tf.TensorSpec((), tf.string)], experimental_attributes={"_noinline": True}
)

HEAD_BYTES = 48  # of a file, in which `holds` looks


class PaddedBytes:
    """The bytes of a string, from any position on.

    Args:
        encoded: scalar string.

    Attributes:
        length: of the string, int64 scalar.
    """

    _ZEROS = 64  # of them stand for what is beyond the end

    def __init__(self, encoded: tf.Tensor) -> None:
        self._encoded = encoded
        self.length = tf.cast(tf.strings.length(encoded), tf.int64)

    def part(self, first: int | tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
        """So many bytes as a string, as far as there are any."""
        return tf.strings.substr(self._encoded, tf.minimum(self.length, first), tf.maximum(tf.cast(count, tf.int64), 0))

    def values(self, first: int | tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
        """So many bytes as int64 `(count,)`; beyond the end are zeros. Above 64 all of them must be in the string."""
        assert not isinstance(count, int) or count <= self._ZEROS
        found = tf.strings.substr(self._encoded, tf.minimum(self.length, first), count)
        padded = tf.strings.join([found, b"\0" * self._ZEROS])  # and not the whole string, which would be copied
        return tf.cast(tf.io.decode_raw(tf.strings.substr(padded, np.int64(0), count), tf.uint8), tf.int64)


def holds(encoded: tf.Tensor, *magics: tuple[int, bytes]) -> tf.Tensor:
    """Which byte strings are at their positions, within `HEAD_BYTES`: bool `(magics,)`. Beyond the end are zeros,
    so that the end of a string holds a magic with zeros that are not there.

    Args:
        encoded: scalar string.
        magics: (position, byte string) of each.
    """
    assert all(at + len(magic) <= HEAD_BYTES for at, magic in magics)
    head = tf.strings.join([tf.strings.substr(encoded, 0, HEAD_BYTES), b"\0" * HEAD_BYTES])
    places, names = zip(*magics, strict=True)
    return tf.strings.substr(head, places, [len(name) for name in names]) == list(names)


def place_values(count: int, places: Sequence[int]) -> np.ndarray:
    """What to multiply `count` values of bytes by, so that the sum is the number whose bytes are at these places, the
    lowest first. int64 `(count,)`."""
    found = np.zeros(count, "int64")
    found[list(places)] = 256 ** np.arange(len(places))
    return found


def to_bytes(numbers: tf.Tensor, count: int) -> tf.Tensor:
    """The bytes of numbers `(n,)` as one string, `count` of each, the lowest first."""
    values = tf.reshape(numbers[:, None] // 256 ** np.arange(count) % 256, (-1,))
    return tf.strings.reduce_join(tf.gather(np.array([bytes([i]) for i in range(256)], "object"), values))


def walk(
    at: int | tf.Tensor,
    read: Callable[[tf.Tensor], tf.Tensor],
    go_on: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    following: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    steps: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The first position from `at`, each leading to the next, where `go_on` is false, or the one after `steps`.

    Args:
        at: where to begin.
        read: the values at a position; `go_on` and `following` take both.
        go_on: whether to go on.
        following: the next position.
        steps: the largest number of them; None for no limit.

    Returns:
        The position, and its values.
    """

    def step(at: tf.Tensor, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        at = following(at, values)
        return at, read(at)

    start = tf.cast(at, tf.int64)
    return tf.while_loop(go_on, step, (start, read(start)), maximum_iterations=steps)

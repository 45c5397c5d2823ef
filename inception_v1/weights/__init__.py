"""Loading weights into a GoogLeNet."""

import os
from pathlib import Path

import keras

SUFFIXES = (".weights.h5", ".keras")


def load_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Loads weights saved by Keras into `model`, every variable of it.

    Args:
        model: a `GoogLeNet` with the same layers as the saved one.
        path: a `.weights.h5` file, or a `.keras` archive.

    Raises:
        ValueError: no such file, another format, or weights of another network. The model is then unchanged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"Expected weights in a file; Received: {str(path)!r}, which does not exist.")
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"Expected a file ending in {' or '.join(SUFFIXES)}; Received: {str(path)!r}.")
    before = model.get_weights()
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        model.set_weights(before)
        raise ValueError(
            f"Expected weights of a network like {model.name!r}; Received: {str(path)!r}: {error}"
        ) from error

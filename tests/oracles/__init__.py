"""The original executors of each published family, fed with the same weights and images as our network.

Each module writes a file of its family, `write(folder)`, and runs it by the third party, `run(path, images)`.
Weights are rebuilt from their names, so that only what PyTorch answered has to be stored: PyTorch and TensorFlow do
not live in one process.
"""

import math
import zlib

import numpy as np

SIZES = ((224, 224), (231, 231), (225, 231))  # an even and an odd size, and no square


def random_array(name: str, shape: tuple[int, ...], channels_last: bool = False) -> np.ndarray:
    """Weights that keep activations at the size of the input; always the same of one name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) >= 2:
        out = shape[-1] if channels_last else shape[0]
        return rng.normal(0, math.sqrt(2 * out / math.prod(shape)), shape).astype("float32")
    if name.endswith(("running_var", "moving_variance")) or name.endswith("bn.weight"):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    return rng.normal(0, 0.2, shape).astype("float32")


def images(height: int, width: int, scale: float) -> np.ndarray:
    """Two images as a network takes them: RGB float32 `(2, height, width, 3)`, smooth and noisy at once."""
    rng = np.random.default_rng(height * 1000 + width)
    coarse = rng.normal(0, 1, (2, height // 8 + 1, width // 8 + 1, 3))
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return ((smooth + 0.5 * rng.normal(0, 1, smooth.shape)) * scale).astype("float32")

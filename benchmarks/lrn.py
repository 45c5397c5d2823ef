"""Time of local response normalization in several forms, side by side: python -m benchmarks.lrn

Each form runs inside `tf.function` on the two feature maps that GoogLeNet normalizes, in alternating rounds; the table
gives medians over the rounds and the ratio to the layer's form.
"""

import os
import statistics
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from inception_v1.layers import LocalResponseNormalization

ROUNDS, REPEATS = 15, 5
SHAPES = ((56, 56, 64), (56, 56, 192))
SIZE, ALPHA, BETA, K = 5, 1e-4, 0.75, 1.0


def band(channels):
    index = np.arange(channels)
    near = np.abs(index[:, None] - index[None, :]) <= SIZE // 2
    return tf.constant(near * (ALPHA / SIZE), tf.float32)


def divided(x, energy):
    root = tf.sqrt(energy)
    return x / (root * tf.sqrt(root))


def matmul_and_power(x):
    return x / tf.pow(K + tf.matmul(tf.square(x), band(x.shape[-1])), BETA)


def convolution(x):
    return divided(x, tf.nn.conv2d(tf.square(x), band(x.shape[-1])[None, None], 1, "SAME") + K)


def shifted_slices(x):
    half = SIZE // 2
    padded = tf.pad(tf.square(x), [[0, 0], [0, 0], [0, 0], [half, half]])
    total = tf.add_n([padded[..., i : i + x.shape[-1]] for i in range(SIZE)])
    return divided(x, K + ALPHA / SIZE * total)


def average_pool(x):
    flat = tf.reshape(tf.square(x), (-1, x.shape[-1], 1))
    mean = tf.nn.avg_pool1d(tf.pad(flat, [[0, 0], [2, 2], [0, 0]]), SIZE, 1, "VALID")
    return divided(x, K + ALPHA * tf.reshape(mean, tf.shape(x)))


def native(x):
    return tf.nn.local_response_normalization(x, SIZE // 2, K, ALPHA / SIZE, BETA)


def forms():
    return {
        "layer: banded matmul, two roots": LocalResponseNormalization(SIZE, ALPHA, BETA, K),
        "banded matmul, power": matmul_and_power,
        "banded 1x1 convolution, two roots": convolution,
        "shifted slices, two roots": shifted_slices,
        "average pool over channels, two roots": average_pool,
        "tf.nn.local_response_normalization": native,
    }


def training(form):
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(form(x))
        return tape.gradient(loss, x)

    return run


def median_milliseconds(functions, x):
    """Median time of each function over rounds that take turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function(x)
    for _ in range(ROUNDS):
        for name, function in functions.items():
            began = time.perf_counter()
            for _ in range(REPEATS):
                result = function(x)
            result.numpy()
            times[name].append((time.perf_counter() - began) / REPEATS * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    console = Console(width=110)
    for batch in (1, 16):
        for height, width, channels in SHAPES:
            x = tf.random.stateless_normal((batch, height, width, channels), (0, 0))
            table = Table(title=f"batch {batch}, {height}x{width}x{channels}, ms", title_justify="left")
            for title in ("form", "inference", "ratio", "with gradient", "ratio"):
                table.add_column(title, justify="left" if title == "form" else "right")
            inference = median_milliseconds({n: tf.function(f) for n, f in forms().items()}, x)
            gradient = median_milliseconds({n: tf.function(training(f)) for n, f in forms().items()}, x)
            own = next(iter(inference))
            for name in inference:
                cells = [
                    cell
                    for times in (inference, gradient)
                    for cell in (f"{times[name]:.2f}", f"{times[name] / times[own]:.2f}")
                ]
                table.add_row(name, *cells)
            console.print(table)


if __name__ == "__main__":
    main()

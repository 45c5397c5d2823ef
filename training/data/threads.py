"""How many threads a `tf.data` chain has, and who decides that."""

import os

import tensorflow as tf

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def without_autotuning(ds: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset without tf.data's own tuning, whose thread may sleep through the end of an iterator.

    TensorFlow 2.21 wakes it before it marks the iterator as cancelled, so that whoever drops the iterator now and then
    waits for the rest of its sleep, which grows to a minute. Parallel stages have to name their number.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return ds.with_options(options)

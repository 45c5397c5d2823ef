"""What `fit` of Keras 3 lacks on several machines: https://github.com/keras-team/keras/issues/20585.

Under `tf.distribute.MultiWorkerMirroredStrategy` two things fail. To build the model Keras averages the first batch
over the replicas, labels included, whose integers have no mean and whose shapes may differ; and it reduces the numbers
that a step returns along an axis that a scalar does not have.
"""

import keras

TESTED = ("3.15",)  # releases of Keras that the two repairs were tested with


def spans_machines(strategy) -> bool:
    """Whether a strategy of `tf.distribute` (or None) shares each step between several processes."""
    if strategy is None:
        return False
    from keras.src.backend.tensorflow.trainer import _collective_all_reduce_multi_worker

    return _collective_all_reduce_multi_worker(strategy)


def mend_keras() -> None:
    """Lets `fit`, `evaluate` and `train_on_batch` of every Keras model run under a multi-worker strategy.

    Under other strategies Keras' own code runs as before. Calling it again changes nothing.

    Raises:
        RuntimeError: a release of Keras that this was not tested with.
    """
    if keras.__version__.rpartition(".")[0] not in TESTED:
        raise RuntimeError(
            f"Expected Keras {' or '.join(TESTED)} for training on several machines, which needs repairs inside Keras "
            f"(keras-team/keras#20585); Received: Keras {keras.__version__}. Install keras=={TESTED[-1]}.*, or run "
            "tests/inception_v1/test_keras_patches.py with this one and add it to inception_v1/keras_patches.py."
        )
    from keras.src.backend.tensorflow import trainer

    if not hasattr(trainer.TensorFlowTrainer._maybe_symbolic_build, "mended"):
        trainer.TensorFlowTrainer._maybe_symbolic_build = _building(trainer)
        trainer.reduce_per_replica = _reducing(trainer)


def _building(trainer):
    keras_own = trainer.TensorFlowTrainer._maybe_symbolic_build

    def build(self, iterator=None, data_batch=None):
        if iterator is None or not spans_machines(self.distribute_strategy):
            return keras_own(self, iterator, data_batch)
        batch = next(next(iter(iterator))[-1])  # an iterator of (first step, last step, iterator of batches)
        one = keras.tree.map_structure(lambda v: self.distribute_strategy.experimental_local_results(v)[0], batch)
        return keras_own(self, data_batch=one)

    build.mended = True
    return build


def _reducing(trainer):
    keras_own = trainer.reduce_per_replica

    def reduce(values, strategy, reduction):
        if reduction == "auto" and spans_machines(strategy):
            return keras.tree.map_structure(lambda v: strategy.reduce("MEAN", v, axis=None), values)
        return keras_own(values, strategy, reduction)

    return reduce

"""Everything that this project takes from Keras' private names, and the versions of Keras that it was tested with.

Two defects of `fit` on several machines are patched (https://github.com/keras-team/keras/issues/20585). Under
`tf.distribute.MultiWorkerMirroredStrategy` Keras averages the first batch over the replicas to build the model, labels
included, whose integers have no mean and whose shapes may differ; and it reduces the logs of a step along an axis that
a scalar does not have. And optimizers of our own need what Keras' keep for themselves (`OptimizerInternals`), and
benchmarks the state of a training step on JAX (`jax_training_state`). `clone_model` takes no notice of a `from_config`,
and makes a plain functional model of a subclass (`refuse_default_clone`).
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras

from inception_v1.errors import UserError

Model = TypeVar("Model", bound=type[keras.Model])

TESTED = ("3.15",)  # releases of Keras; `setup.py` allows no others


def is_multi_worker(strategy: Any) -> bool:
    """Whether a strategy of `tf.distribute` (or None) distributes each step over several processes."""
    if strategy is None:
        return False
    trainer = _tensorflow_trainer()
    return trainer._collective_all_reduce_multi_worker(strategy)


def patch_multi_worker_fit() -> None:
    """Lets `fit`, `evaluate` and `train_on_batch` of every Keras model run under a multi-worker strategy.

    Under other strategies Keras' own code runs as before. Calling it again changes nothing.

    Raises:
        RuntimeError: a release of Keras that this was not tested with.
    """
    if keras.__version__.rpartition(".")[0] not in TESTED:
        raise RuntimeError(
            f"Expected Keras {' or '.join(TESTED)} for training on several machines, which needs patches inside Keras "
            f"(keras-team/keras#20585); Received: Keras {keras.__version__}. Install keras=={TESTED[-1]}.*, or run "
            "tests/inception_v1/test_keras_patches.py with this one and add it to inception_v1/keras_patches.py."
        )
    trainer = _tensorflow_trainer()
    if not hasattr(trainer.TensorFlowTrainer._maybe_symbolic_build, "patched"):
        trainer.TensorFlowTrainer._maybe_symbolic_build = _build_from_one_replica(trainer)
        trainer.reduce_per_replica = _reduce_scalars(trainer)


def refuse_default_clone(model_class: Model) -> Model:
    """Decorates a functional model's class: `clone_model` without a function of the user's raises UserError.

    Keras' comments promise a model of the same class, but since it wraps the function that clones layers it makes a
    plain functional one, unless the constructor takes inputs and outputs. A clone of changed layers has to be that.
    """
    patched: Any = model_class

    def run_through_graph(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _clones_by_default(kwargs.get("operation_fn")):
            name = model_class.__name__
            raise UserError(
                f"Expected {name}.from_config(model.get_config()) for a copy with new weights; Received: "
                f"clone_model(model), which would not make it a {name}."
            )
        return super(patched, self)._run_through_graph(*args, **kwargs)  # Keras' Functional

    patched._run_through_graph = run_through_graph
    return model_class


def _clones_by_default(operation_fn: Any) -> bool:
    """Whether a function that a model runs over its layers is that of `clone_model(model)`."""
    module = "keras.src.models.cloning"
    if getattr(operation_fn, "__module__", None) != module:
        return False
    while "clone_function" in (names := inspect.getclosurevars(operation_fn).nonlocals):
        operation_fn = names["clone_function"]
    return getattr(operation_fn, "__module__", None) == module


class OptimizerInternals:
    """What a subclass of a Keras optimizer needs of Keras' private names, under public ones; a mixin.

    Raises:
        RuntimeError: on construction, where this release of Keras lacks one of the names.
    """

    _trainable_variables: list[keras.Variable]  # these are the optimizer's
    _model_variables_moving_average: list[keras.Variable]
    _get_variable_index: Callable[[Any], int]
    _learning_rate: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = ("_trainable_variables", "_get_variable_index", "_learning_rate")
        _check_attributes(self, (*names, "_update_model_variables_moving_average"))

    @property
    def tracked_variables(self) -> list[keras.Variable]:
        """The variables that the optimizer was built for, in its own order."""
        return self._trainable_variables

    @property
    def moving_averages(self) -> list[keras.Variable]:
        """The average of each of `tracked_variables`, where `use_ema` is set."""
        _check_attributes(self, ("_model_variables_moving_average",))  # which `build` makes
        return self._model_variables_moving_average

    def variable_index(self, variable: Any) -> int:
        """Position of a variable, or of TensorFlow's variable inside of it, in `tracked_variables`."""
        return self._get_variable_index(variable)

    def learning_rate_at(self, step: Any) -> Any:
        """The learning rate of a step, which the schedule decides where there is one."""
        rate = self._learning_rate
        return rate(step) if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else rate

    def update_moving_averages(self, variables: Sequence[keras.Variable]) -> None:
        """Called after each update of `variables`."""

    def _update_model_variables_moving_average(self, trainable_variables: Sequence[keras.Variable]) -> None:
        self.update_moving_averages(trainable_variables)


def jax_training_state(model: keras.Model) -> Any:
    """The state that `model.train_function` takes and returns on Keras' JAX backend, moved out of the variables.

    Args:
        model: compiled, with its variables and its training function made.

    Raises:
        RuntimeError: a release of Keras that lacks what this needs.
    """
    _check_attributes(model, ("_get_jax_state",))
    kinds = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
    return model._get_jax_state(**dict.fromkeys(kinds, True), purge_model_variables=True)


def _tensorflow_trainer() -> Any:
    """Keras' module of `fit` on TensorFlow."""
    from keras.src.backend.tensorflow import trainer

    _check_attributes(trainer, ("_collective_all_reduce_multi_worker", "reduce_per_replica"))
    _check_attributes(trainer.TensorFlowTrainer, ("_maybe_symbolic_build",))
    return trainer


def _check_attributes(owner: Any, names: Sequence[str]) -> None:
    if missing := [name for name in names if not hasattr(owner, name)]:
        raise RuntimeError(
            f"Expected Keras {' or '.join(TESTED)}, whose {getattr(owner, '__name__', type(owner).__name__)} has "
            f"{', '.join(missing)}; Received: Keras {keras.__version__}, which has not. Install keras=={TESTED[-1]}.*."
        )


def _build_from_one_replica(trainer: Any) -> Callable[..., None]:
    original = trainer.TensorFlowTrainer._maybe_symbolic_build

    def build(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
        if iterator is None or not is_multi_worker(self.distribute_strategy):
            return original(self, iterator, data_batch)
        batch = next(next(iter(iterator))[-1])  # an iterator of (first step, last step, iterator of batches)
        one = keras.tree.map_structure(lambda v: self.distribute_strategy.experimental_local_results(v)[0], batch)
        return original(self, data_batch=one)

    marked: Any = build
    marked.patched = True
    return build


def _reduce_scalars(trainer: Any) -> Callable[[Any, Any, str], Any]:
    original = trainer.reduce_per_replica

    def reduce(values: Any, strategy: Any, reduction: str) -> Any:
        if reduction == "auto" and is_multi_worker(strategy):
            return keras.tree.map_structure(lambda v: strategy.reduce("MEAN", v, axis=None), values)
        return original(values, strategy, reduction)

    return reduce

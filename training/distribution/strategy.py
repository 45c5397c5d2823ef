"""The interface of every distribution strategy, and the one that needs no other device.

The rest of the code holds a `Strategy` and never asks which one; `choose.make_strategy` makes it.
"""

import abc
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, ParamSpec, TypeVar

import keras
import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from training.data.pipeline import WHOLE, Position, Shard
from training.errors import UserError
from training.recipe import Recipe

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
MakeBatches = Callable[[Position, Shard, str | None], tf.data.Dataset]  # as `Batches.training`


class Strategy(abc.ABC):
    """Which devices share the steps of a run.

    Attributes:
        name: of the strategy.
        replicas: devices that share a step, each with the recipe's batch size.
        processes: that take part in each step and call the callbacks.
        index: number of this process; 0 is the chief, which alone writes.
        serves: whether this process only works for a coordinator (see `serve`).
        unsupported: fields of recipes to values that cannot be trained under this strategy.
    """

    name: str
    replicas: int = 1
    processes: int = 1
    index: int = 0
    serves: bool = False
    unsupported: ClassVar[Mapping[str, Any]] = {}

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    @abc.abstractmethod
    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where the network is built and compiled."""

    @abc.abstractmethod
    def dataset(self, make: Callable[[Shard], tf.data.Dataset]) -> Any:
        """What Keras' `fit` takes, from a function that makes the batches of a shard of each step."""

    def shard(self) -> Shard:
        """This process' part of evaluation: all of it, where there is no other process."""
        return WHOLE

    def gather(self, text: str) -> list[str]:
        """The texts of all processes, in their order, once all have sent one."""
        return [text]

    def detect_failures(self) -> contextlib.AbstractContextManager[Any]:
        """Turns what is raised when another process is lost into a `ClusterError`."""
        return contextlib.nullcontext()

    def serve(self) -> None:
        """Works for the coordinator until it ends."""
        raise AssertionError(f"strategy {self.name!r} has no coordinator")

    def check(self, recipe: Recipe) -> None:
        """Raises UserError for what cannot be trained under this strategy."""
        for field, value in self.unsupported.items():
            if getattr(recipe, field) == value:
                raise UserError(f"Expected another {field} under strategy {self.name!r}; Received: {field}={value!r}.")

    def fit(
        self,
        model: GoogLeNet,
        make: MakeBatches,
        service: str | None,
        *,
        start: Position,
        epochs: int,
        steps: int,
        callbacks: list[keras.callbacks.Callback],
        logs: dict[str, float] | None = None,
    ) -> dict[str, Any]:
        """Trains as `keras.Model.fit` does, from any step on.

        Args:
            model: built and compiled in `scope()`.
            make: makes the training batches from a position on, of a shard of each step, by a `tf.data` service unless
                that is None.
            service: address of that service, or None.
            start: the first step.
            epochs: of the run.
            steps: in an epoch.
            callbacks: as Keras calls them. An epoch that begins in its middle begins for them too.
            logs: of the first epoch, where all its steps are trained (see `State`).

        Returns:
            What else was measured, for `metrics.json`.
        """

        def train(first: Position, last_epoch: int, count: int) -> None:
            dataset = self.dataset(lambda shard: make(first, shard, service))
            model.fit(
                dataset,
                shuffle=False,  # the dataset does
                verbose=0,
                initial_epoch=first.epoch,
                epochs=last_epoch,
                steps_per_epoch=count,
                callbacks=listed,
            )

        listed = _RunCallbacks(callbacks, start.step, add_history=True, model=model, epochs=epochs, steps=steps)
        if 0 < start.step < steps:
            train(start, start.epoch + 1, steps - start.step)
        elif start.step:
            listed.on_train_begin()
            listed.on_epoch_begin(start.epoch)
            listed.on_epoch_end(start.epoch, logs)
        rest = Position(start.epoch + 1) if start.step else start
        if rest.epoch < epochs and not (start.step and model.stop_training):
            train(rest, epochs, steps)
        listed.end()
        return {}

    def synchronize(self, model: GoogLeNet, step: int) -> int:
        """Gives the variables of `model` the values that they have within `fit` after a step of the epoch.

        Returns:
            How many steps they have seen, where that is another number.
        """
        if keras.backend.backend() == "jax":
            model.jax_state_sync()  # which Keras' `fit` does after an epoch
        return step

    def read_local(self, model: GoogLeNet, metrics: bool) -> list[np.ndarray]:
        """Copies of what the replicas of this process have of their own: the epoch's metrics so far, if asked for."""
        return [np.array(variable) for variable in model.metrics_variables] if metrics else []

    def write_local(self, model: GoogLeNet, values: Sequence[np.ndarray]) -> None:
        """Sets what `read_local` returned, in a new epoch of `fit`."""
        for variable, value in zip(model.metrics_variables, values, strict=bool(values)):
            variable.assign(value)

    def total(self, counts: Sequence[int]) -> list[int]:
        """Sums of a few small integers over the processes, in little time."""
        return list(counts)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of an array over the processes."""
        return np.sum([json.loads(text) for text in self.gather(json.dumps(values.tolist()))], axis=0)

    def run_everywhere(
        self, step: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Runs a step of the preparation on every process, on the chief first, so that either all succeed or none.

        Raises:
            UserError: on every process, with the message of the first that failed.
        """
        results: list[Result] = []
        error = ""
        for turn in (True, False):
            if turn == self.is_chief:
                try:
                    results.append(step(*args, **kwargs))
                except UserError as own:
                    error = str(own)
            if failed := [text for text in self.gather(error) if text]:
                raise UserError(failed[0])
        return results[0]

    def check_agreement(self, settings: dict[str, Any]) -> None:
        """Raises UserError on every process unless all hold the same settings; names those that differ."""
        chief, *others = (json.loads(text) for text in self.gather(json.dumps(settings)))
        for index, other in enumerate(others, 1):
            if differ := [
                f"{name} {chief[name]!r} and {other[name]!r}" for name in chief if chief[name] != other[name]
            ]:
                raise UserError(
                    f"Expected the same settings on every worker; Received: on worker 0 and {index}: "
                    f"{', '.join(differ)}."
                )


class SingleDevice(Strategy):
    """One device in this process."""

    name = "default"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def dataset(self, make: Callable[[Shard], tf.data.Dataset]) -> tf.data.Dataset:
        return make(WHOLE)

    def write_local(self, model: GoogLeNet, values: Sequence[np.ndarray]) -> None:
        if len(model.metrics_variables) < len(values):  # on TensorFlow Keras makes the others in the first step
            uniform = keras.ops.full((1, model.spec.classes), 1 / model.spec.classes)
            model.compute_metrics(None, np.zeros(1, "int64"), dict.fromkeys(model.spec.heads, uniform))
        super().write_local(model, values)


class _RunCallbacks(keras.callbacks.CallbackList):
    """The callbacks of a run that may begin within an epoch, which Keras' `fit` then trains in two calls.

    Args:
        callbacks: in their order.
        first: number of the first step within its epoch.
        **arguments: of `keras.callbacks.CallbackList`.
    """

    def __init__(self, callbacks: list[keras.callbacks.Callback], first: int, **arguments: Any) -> None:
        super().__init__(callbacks, **arguments)
        self._first, self._begun = first, False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._begun:
            super().on_train_begin(logs)
        self._begun = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_begin(self._first + batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(self._first + batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._first = 0

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Waits for `end`."""

    def end(self) -> None:
        """Ends training for the callbacks."""
        super().on_train_end()

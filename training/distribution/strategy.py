"""The interface of every distribution strategy, and the one that needs no other device.

The rest of the code holds a `Strategy` and never asks which one; `choose.make_strategy` makes it.
"""

import abc
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, ParamSpec, TypeVar

import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from training.data.pipeline import WHOLE, Shard
from training.errors import UserError
from training.recipe import Recipe

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
MakeBatches = Callable[[Shard, str | None], tf.data.Dataset]  # of a shard of each step, by a tf.data service or None


class Strategy(abc.ABC):
    """Which devices share the steps of a run.

    Attributes:
        name: of the strategy.
        replicas: devices that share a step, each with the recipe's batch size.
        index: number of this process; 0 is the chief, which alone writes.
        serves: whether this process only works for a coordinator (see `serve`).
        unsupported: fields of recipes to values that cannot be trained under this strategy.
    """

    name: str
    replicas: int = 1
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

    def fit(self, model: GoogLeNet, make: MakeBatches, service: str | None, **arguments: Any) -> dict[str, Any]:
        """Trains as `keras.Model.fit` does, which takes the other arguments.

        Args:
            model: built and compiled in `scope()`.
            make: makes the training batches of a shard of each step, by a `tf.data` service unless that is None.
            service: address of that service, or None.
            **arguments: of `keras.Model.fit`.

        Returns:
            What else was measured, for `metrics.json`.
        """
        dataset = self.dataset(lambda shard: make(shard, service))
        model.fit(dataset, shuffle=False, verbose=0, **arguments)  # the dataset shuffles itself
        return {}

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

"""Asynchronous SGD on parameter servers, as the paper trained (arXiv 1409.4842, section 6; DistBelief, Dean 2012).

A worker reads the weights from the parameter servers, computes the gradient of one batch and sends it back, where it is
applied at once, whatever the other workers did meanwhile. The coordinator (the chief) hands out the steps, and between
two epochs takes a copy of the weights, which it evaluates and saves while the workers continue.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from inception_v1.losses import in_top_k
from training.data import service as data_service
from training.data.pipeline import WHOLE, Position, Shard
from training.distribution.cluster import LOST, await_all, find_lost, find_server_problem, loss_message, unreachable
from training.distribution.strategy import MakeBatches, Strategy
from training.errors import ClusterError, UserError
from training.optimizer import SGD, fused_momentum_step
from training.recipe import Recipe

LARGEST_STALENESS = 1023  # updates; the count of what is staler is kept there
THREADS = 8  # at least, between operations: on one core TensorFlow takes one, and the wait for a batch would hold it
POLL = 0.1  # seconds between two reads of the counter


class ParameterServer(Strategy):
    """Workers that train asynchronously on weights that parameter servers hold, one update for each of their batches.

    Weights and what the optimizer keeps are spread over the parameter servers, variable by variable.
    """

    unsupported: ClassVar[Mapping[str, Any]] = {
        "deterministic": True,
        "aux_schedule": "linear",
        "precision": "mixed_float16",
    }

    def __init__(self, name: str, resolver: tf.distribute.cluster_resolver.ClusterResolver, timeout: float) -> None:
        spec = resolver.cluster_spec()
        self.name, self._resolver, self._timeout = name, resolver, timeout
        self._chief = spec.task_address("chief", 0)
        self._workers = {f"worker {i}": where for i, where in enumerate(spec.as_dict()["worker"])}
        self._servers = {f"ps {i}": where for i, where in enumerate(spec.as_dict()["ps"])}
        self.serves = resolver.task_type != "chief"
        if self.serves:
            return
        os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")  # else a worker that comes back is not waited for
        await_all(self._workers | self._servers, timeout, find_server_problem)
        self._strategy = tf.distribute.ParameterServerStrategy(resolver)
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self._strategy)

    def serve(self) -> None:
        """Works for the coordinator until it ends.

        Raises:
            ClusterError: it did not join.
        """
        tf.distribute.Server(
            self._resolver.cluster_spec(),
            job_name=self._resolver.task_type,
            task_index=self._resolver.task_id,
            protocol=self._resolver.rpc_layer or "grpc",
            config=tf.compat.v1.ConfigProto(inter_op_parallelism_threads=max(THREADS, os.cpu_count() or 1)),
        )
        chief = {"chief": self._chief}
        await_all(chief, self._timeout, find_server_problem)
        while not unreachable(chief):
            time.sleep(1)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def dataset(self, make: Callable[[Shard], tf.data.Dataset]) -> tf.data.Dataset:
        return make(WHOLE)

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if recipe.unfreeze_epochs:
            raise UserError(
                "Expected no unfreeze_epochs with parameter servers, where the graph is one for all epochs."
            )
        if recipe.teacher or recipe.distill_heads:
            received = f"teacher={recipe.teacher!r}, distill_heads={recipe.distill_heads}"
            raise UserError(f"Expected no teacher and no distill_heads with parameter servers; Received: {received}.")

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
        """Trains `model` (of this process) by way of a server-side replica.

        Returns:
            {"updates": of the weights so far, "staleness": {"mean", "max": updates by others between a worker's read of
            the weights and its own update}}, of this call.
        """
        with contextlib.ExitStack() as stack:
            if service is None:
                service = stack.enter_context(data_service.run_service(self._chief.rpartition(":")[0]))
            first = Position(start.epoch + 1) if start.step == steps else start
            endless = make(first, WHOLE, None).repeat()  # a worker that dies takes batches with it
            self._replica = _ServerReplica(model, self._strategy, self._batches(endless, service))
            callback_list = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs, steps=steps)
            self._train(model, self._replica, start, epochs, steps, callback_list, logs)
            return self._replica.staleness()

    def synchronize(self, model: GoogLeNet, step: int) -> int:
        """Copies the weights while the workers change them, as each worker reads them too."""
        self._seen = self._replica.sums()
        self._replica.copy_to(model)
        return int(self._seen[0])

    def read_local(self, model: GoogLeNet, metrics: bool) -> list[np.ndarray]:
        return [self._seen] if metrics else []

    def write_local(self, model: GoogLeNet, values: Sequence[np.ndarray]) -> None:
        for sums in values:
            self._replica.set_sums(sums)

    def _batches(self, ds: tf.data.Dataset, service: str) -> Any:
        """An iterator on every worker over what they all share: each batch goes to the one that asks first."""
        registered = tf.data.experimental.service.register_dataset(service, ds)

        def on_worker() -> tf.data.Dataset:
            return tf.data.experimental.service.from_dataset_id(
                tf.data.experimental.service.ShardingPolicy.DYNAMIC,
                service,
                registered,
                element_spec=ds.element_spec,
                job_name="training",
            )

        return iter(self._coordinator.create_per_worker_dataset(on_worker))

    def _train(
        self,
        model: GoogLeNet,
        replica: "_ServerReplica",
        start: Position,
        epochs: int,
        steps: int,
        callback_list: keras.callbacks.CallbackList,
        logs: dict[str, float] | None,
    ) -> None:
        callback_list.on_train_begin()
        for epoch in range(start.epoch, epochs):
            callback_list.on_epoch_begin(epoch)
            done = start.step if epoch == start.epoch else 0
            if epoch == start.epoch:
                self._schedule(replica, steps - done)
            if done < steps:
                self._follow(replica, callback_list, done, steps)
                replica.copy_to(model)
            if done < steps or logs is None:  # the workers finished the epoch while its state was copied
                logs = replica.logs()
            replica.set_sums(None)
            if epoch + 1 < epochs:
                self._schedule(replica, steps)  # the workers continue while this process evaluates
            callback_list.on_epoch_end(epoch, logs)
        callback_list.on_train_end()

    def _schedule(self, replica: "_ServerReplica", steps: int) -> None:
        for _ in range(steps):
            self._coordinator.schedule(replica.step, args=(replica.batches,))

    def _follow(
        self, replica: "_ServerReplica", callback_list: keras.callbacks.CallbackList, done: int, steps: int
    ) -> None:
        """Waits for the steps of an epoch that are not done, and calls the callbacks for each."""
        last_progress = time.monotonic()
        while done < steps:
            finished, logs = self._coordinator.done(), replica.logs()
            count = steps if finished else min(replica.done(), steps - 1)
            if count > done:
                last_progress = time.monotonic()
            elif time.monotonic() - last_progress > self._timeout:
                self._check_workers()
            for step in range(done, count):
                callback_list.on_train_batch_begin(step)
                callback_list.on_train_batch_end(step, logs)
            done = count
            if not finished:
                time.sleep(POLL)
        self._coordinator.join()

    def _check_workers(self) -> None:
        """Raises ClusterError where every worker is lost."""
        dead = unreachable(self._workers)
        if len(dead) == len(self._workers):
            raise ClusterError(loss_message(dead, TimeoutError(f"no step for {self._timeout:g} s")))

    @contextlib.contextmanager
    def detect_failures(self) -> Iterator[None]:
        try:
            yield
        except LOST as error:
            raise ClusterError(loss_message(find_lost(self._servers | self._workers), error)) from error


class _ServerReplica:
    """A network and its optimizer on the parameter servers, with the variables of one in this process.

    Attributes:
        batches: a distributed iterator.
        step: a function for the workers; trains on the next batch.
    """

    def __init__(self, model: GoogLeNet, strategy: tf.distribute.ParameterServerStrategy, batches: Any) -> None:
        self.batches = batches
        with strategy.scope():
            self._model = GoogLeNet.from_config(model.get_config())
            for own, other in zip(self._model.layers, model.layers, strict=True):
                own.trainable = other.trainable
            self._optimizer = SGD.from_config(model.optimizer.get_config())
            self._optimizer.build(self._model.trainable_variables)
            once = tf.VariableAggregation.ONLY_FIRST_REPLICA
            heads = len(self._model.spec.heads)
            self._sums = tf.Variable(tf.zeros(2 + 3 * heads), trainable=False, aggregation=once)  # steps, loss, by head
            self._staleness = tf.Variable(
                tf.zeros(LARGEST_STALENESS + 1, tf.int64), trainable=False, aggregation=once
            )  # number of updates by staleness
        compiled = keras.saving.deserialize_keras_object(model.get_compile_config())
        self._losses, self._weights = compiled["loss"], compiled["loss_weights"]
        for own, other in self._pairs(model):
            own.assign(np.asarray(other))
        self.step = tf.function(self._step, autograph=False)

    def _pairs(self, model: GoogLeNet) -> Iterator[tuple[keras.Variable, keras.Variable]]:
        own = [*self._model.variables, *self._optimizer.variables]
        return zip(own, [*model.variables, *model.optimizer.variables], strict=True)

    def copy_to(self, model: GoogLeNet) -> None:
        """Assigns the weights to `model`, and the optimizer's state to its optimizer."""
        for own, other in self._pairs(model):
            other.assign(np.asarray(own))

    def sums(self) -> np.ndarray:
        """Of the steps of the epoch: their number, their losses, and so on."""
        return self._sums.numpy()

    def set_sums(self, values: np.ndarray | None) -> None:
        """Sets what `sums` returned; None for a new epoch."""
        self._sums.assign(tf.zeros_like(self._sums) if values is None else values)

    def done(self) -> int:
        """Steps of the epoch that are done."""
        return int(self._sums.numpy()[0])

    def logs(self) -> dict[str, float]:
        """Means over the steps of the epoch, by the names that Keras uses."""
        steps, *sums = self._sums.numpy().tolist()
        names = ["loss"]
        for head in self._model.spec.heads:
            names += [f"{head}_loss", f"{head}_accuracy", f"{head}_top5_accuracy"]
        return {name: value / max(steps, 1) for name, value in zip(names, sums, strict=True)}

    def staleness(self) -> dict[str, Any]:
        """What `ParameterServer.fit` returns."""
        counts = self._staleness.numpy()
        found = np.flatnonzero(counts)
        mean = float((counts * np.arange(len(counts))).sum() / max(1, counts.sum()))
        return {
            "updates": int(self._optimizer.iterations.numpy()),
            "staleness": {"mean": mean, "max": int(found[-1]) if len(found) else 0},
        }

    def _step(self, batches: Any) -> None:
        images, labels = next(batches)
        counter = self._optimizer.iterations.value
        seen = counter.read_value()
        with tf.control_dependencies([seen]), tf.GradientTape() as tape:
            predictions = self._model(images, training=True)
            losses = {head: self._losses[head](labels, predictions[head]) for head in self._model.spec.heads}
            loss = tf.add_n([self._weights[head] * value for head, value in losses.items()])
        variables = self._model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        learning_rate = self._optimizer.learning_rate_at(seen)  # here, since a schedule's graph is large
        updates = [self._update(*pair, learning_rate, seen) for pair in zip(gradients, variables, strict=True)]
        with tf.control_dependencies(updates):
            before = tf.raw_ops.ResourceCountUpTo(resource=counter.handle, limit=2**31 - 1, T=counter.dtype)
        stale = tf.minimum(tf.cast(before - seen, tf.int64), LARGEST_STALENESS)
        tf.raw_ops.ResourceScatterAdd(resource=self._staleness.handle, indices=stale, updates=tf.constant(1, tf.int64))
        values = [tf.constant(1.0), loss]
        for head, value in losses.items():
            values += [value, *(tf.reduce_mean(in_top_k(labels, predictions[head], k)) for k in (1, 5))]
        with tf.control_dependencies([before]):  # a state may have an update that does not count, never the reverse
            tf.raw_ops.AssignAddVariableOp(resource=self._sums.handle, value=tf.stack(values))

    def _update(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor, steps: tf.Tensor
    ) -> tf.Operation:
        """One step of the optimizer's update rule, on the parameter server that holds the variable."""
        optimizer = self._optimizer
        slots = _ServerSlots(optimizer, variable)
        with tf.device(variable.value.device):
            optimizer.update(slots, variable, gradient, tf.cast(learning_rate, gradient.dtype))
            if optimizer.average is not None:
                slots.average(optimizer.average_momentum(steps))
        return slots.last


class _ServerSlots:
    """One variable on a parameter server and its slots: operations that change them in place, one after the other.

    Attributes:
        last: the operation after which all is done.
    """

    def __init__(self, optimizer: SGD, variable: keras.Variable) -> None:
        index = optimizer.variable_index(variable)
        self._optimizer, self._dtype = optimizer, variable.value.dtype
        self._weight, self._velocity = variable.value.handle, optimizer.momentums[index].value.handle
        averages = optimizer.average is not None
        self._average = optimizer.moving_averages[index].value.handle if averages else None
        self.last = tf.no_op()

    def value(self) -> tf.Tensor:
        return self._read(self._weight)

    def decay(self, fraction: Any) -> None:
        self.last = tf.raw_ops.AssignSubVariableOp(resource=self._weight, value=fraction * self.value())

    def momentum_step(self, gradient: Any, learning_rate: Any) -> None:
        with tf.control_dependencies([self.last]):
            self.last = fused_momentum_step(self._optimizer, self._weight, self._velocity, gradient, learning_rate)

    def average(self, momentum: Any) -> None:
        with tf.control_dependencies([self.last]):
            difference = self.value() - self._read(self._average)
            self.last = tf.raw_ops.AssignAddVariableOp(resource=self._average, value=(1 - momentum) * difference)

    def _read(self, handle: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.ReadVariableOp(resource=handle, dtype=self._dtype)

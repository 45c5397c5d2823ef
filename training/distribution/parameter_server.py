"""Asynchronous SGD on parameter servers, as the paper trained (arXiv 1409.4842, section 6; DistBelief, Dean 2012).

A worker reads the weights from the parameter servers, computes the gradient of one batch and sends it back, where it is
applied at once, whatever the other workers did meanwhile. The coordinator (the chief) hands out the steps, and between
two epochs takes a copy of the weights, which it evaluates and saves while the workers go on.
"""

import contextlib
import os
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from inception_v1.model import in_top_k
from training.data import service as data_service
from training.data.pipeline import WHOLE
from training.distribution.launch import ClusterError
from training.distribution.strategy import LOST, Engine, await_all, gone, lost, silent
from training.optimizer import SGD

STALEST = 1023  # updates; the count of what is staler stays there
THREADS = 8  # at least, between operations: on one core TensorFlow takes one, and the wait for a batch would hold it
LOOK = 0.1  # seconds between two looks at the counter
CANNOT = {"deterministic": True, "aux_schedule": "linear", "precision": "mixed_float16"}


class ParameterServer(Engine):
    """Workers that train asynchronously on weights that parameter servers hold, one update for each of their batches.

    Weights and what the optimizer keeps are spread over the parameter servers, variable by variable.
    """

    def __init__(self, resolver: tf.distribute.cluster_resolver.ClusterResolver, timeout: float):
        spec = resolver.cluster_spec()
        self._resolver, self._timeout = resolver, timeout
        self._chief = spec.task_address("chief", 0)
        self._workers = {f"worker {i}": where for i, where in enumerate(spec.as_dict()["worker"])}
        self._servers = {f"ps {i}": where for i, where in enumerate(spec.as_dict()["ps"])}
        self.serves = resolver.task_type != "chief"
        if self.serves:
            return
        os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")  # else a worker that comes back is not waited for
        await_all(self._workers | self._servers, timeout)
        self._strategy = tf.distribute.ParameterServerStrategy(resolver)
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self._strategy)

    def serve(self) -> None:
        """Works for the coordinator until it is gone.

        Raises:
            ClusterError: it did not come.
        """
        tf.distribute.Server(
            self._resolver.cluster_spec(),
            job_name=self._resolver.task_type,
            task_index=self._resolver.task_id,
            protocol=self._resolver.rpc_layer or "grpc",
            config=tf.compat.v1.ConfigProto(inter_op_parallelism_threads=max(THREADS, os.cpu_count() or 1)),
        )
        chief = {"chief": self._chief}
        await_all(chief, self._timeout)
        while not silent(chief):
            time.sleep(1)

    def check(self, recipe):
        for field, value in CANNOT.items():
            if getattr(recipe, field) == value:
                raise ValueError(f"Expected another {field} with parameter servers; Received: {field}={value!r}.")
        if recipe.unfreeze_epochs:
            raise ValueError(
                "Expected no unfreeze_epochs with parameter servers, where the graph is one for all epochs."
            )

    def fit(self, model, make, service, **arguments):
        """Trains `model` (of this process) by way of a twin on the parameter servers.

        Returns:
            {"updates": of the weights so far, "staleness": {"mean", "max": updates by others between a worker's look
            at the weights and its own}}, of this call.
        """
        with contextlib.ExitStack() as stack:
            if service is None:
                service = stack.enter_context(data_service.serving(self._chief.rpartition(":")[0]))
            endless = make(WHOLE, None).repeat()  # a worker that dies takes batches with it
            twin = _Twin(model, self._strategy, self._batches(endless, service))
            return self._train(model, twin, **arguments)

    def _batches(self, ds: tf.data.Dataset, service: str) -> Any:
        """An iterator on every worker over what they all share: each batch goes to the one that asks first."""
        registered = tf.data.experimental.service.register_dataset(service, ds)

        def on_worker():
            return tf.data.experimental.service.from_dataset_id(
                tf.data.experimental.service.ShardingPolicy.DYNAMIC,
                service,
                registered,
                element_spec=ds.element_spec,
                job_name="training",
            )

        return iter(self._coordinator.create_per_worker_dataset(on_worker))

    def _train(self, model, twin, epochs, initial_epoch, steps_per_epoch, callbacks) -> dict[str, Any]:
        watchers = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs, steps=steps_per_epoch)
        watchers.on_train_begin()
        self._schedule(twin, steps_per_epoch)
        for epoch in range(initial_epoch, epochs):
            watchers.on_epoch_begin(epoch)
            self._follow(twin, watchers, steps_per_epoch)
            logs = twin.logs()
            twin.copy_to(model)
            if epoch + 1 < epochs:
                self._schedule(twin, steps_per_epoch)  # the workers go on while this process evaluates
            watchers.on_epoch_end(epoch, logs)
        watchers.on_train_end()
        return twin.staleness()

    def _schedule(self, twin: "_Twin", steps: int) -> None:
        for _ in range(steps):
            self._coordinator.schedule(twin.step, args=(twin.batches,))

    def _follow(self, twin: "_Twin", watchers: keras.callbacks.CallbackList, steps: int) -> None:
        """Waits for the steps of an epoch, and tells the callbacks how far they are."""
        done, moved = 0, time.monotonic()
        while done < steps:
            finished, logs = self._coordinator.done(), twin.logs()
            count = steps if finished else min(twin.done(), steps - 1)
            if count > done:
                moved = time.monotonic()
            elif time.monotonic() - moved > self._timeout and len(dead := silent(self._workers)) == len(self._workers):
                raise ClusterError(lost(dead, TimeoutError(f"no step for {self._timeout:g} s")))
            for step in range(done, count):
                watchers.on_train_batch_begin(step)
                watchers.on_train_batch_end(step, logs)
            done = count
            if not finished:
                time.sleep(LOOK)
        self._coordinator.join()

    @contextlib.contextmanager
    def faults(self):
        try:
            yield
        except LOST as error:
            raise ClusterError(lost(gone(self._servers | self._workers), error)) from error


class _Twin:
    """A network and its optimizer on the parameter servers, as alike as its variables.

    Attributes:
        batches: a distributed iterator.
        step: a function for the workers; trains on the next batch.
    """

    def __init__(self, model: GoogLeNet, strategy: tf.distribute.ParameterServerStrategy, batches):
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
            self._stale = tf.Variable(tf.zeros(STALEST + 1, tf.int64), trainable=False, aggregation=once)
        compiled = keras.saving.deserialize_keras_object(model.get_compile_config())
        self._losses, self._weights = compiled["loss"], compiled["loss_weights"]
        for own, other in self._pairs(model):
            own.assign(np.asarray(other))
        self.step = tf.function(self._step)

    def _pairs(self, model):
        own = [*self._model.variables, *self._optimizer.variables]
        return zip(own, [*model.variables, *model.optimizer.variables], strict=True)

    def copy_to(self, model: GoogLeNet) -> None:
        """Gives `model` the weights and its optimizer the state."""
        for own, other in self._pairs(model):
            other.assign(np.asarray(own))
        self._sums.assign(tf.zeros_like(self._sums))

    def done(self) -> int:
        """Steps since the last copy."""
        return int(self._sums.numpy()[0])

    def logs(self) -> dict[str, float]:
        """Means over the steps since the last copy, by the names that Keras uses."""
        steps, *sums = self._sums.numpy().tolist()
        names = ["loss"]
        for head in self._model.spec.heads:
            names += [f"{head}_loss", f"{head}_accuracy", f"{head}_top5_accuracy"]
        return {name: value / max(steps, 1) for name, value in zip(names, sums, strict=True)}

    def staleness(self) -> dict[str, Any]:
        """What `ParameterServer.fit` returns."""
        counts = self._stale.numpy()
        found = np.flatnonzero(counts)
        mean = float((counts * np.arange(len(counts))).sum() / max(1, counts.sum()))
        return {
            "updates": int(self._optimizer.iterations.numpy()),
            "staleness": {"mean": mean, "max": int(found[-1]) if len(found) else 0},
        }

    def _step(self, batches):
        images, labels = next(batches)
        counter = self._optimizer.iterations.value
        seen = counter.read_value()
        with tf.control_dependencies([seen]), tf.GradientTape() as tape:
            answers = self._model(images, training=True)
            losses = {head: self._losses[head](labels, answers[head]) for head in self._model.spec.heads}
            loss = tf.add_n([self._weights[head] * value for head, value in losses.items()])
        variables = self._model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        rate = self._optimizer._learning_rate(seen)
        updates = [self._update(*pair, rate, seen) for pair in zip(gradients, variables, strict=True)]
        with tf.control_dependencies(updates):
            before = tf.raw_ops.ResourceCountUpTo(resource=counter.handle, limit=2**31 - 1, T=counter.dtype)
        stale = tf.minimum(tf.cast(before - seen, tf.int64), STALEST)
        tf.raw_ops.ResourceScatterAdd(resource=self._stale.handle, indices=stale, updates=tf.constant(1, tf.int64))
        values = [tf.constant(1.0), loss]
        for head, value in losses.items():
            values += [value, *(tf.reduce_mean(in_top_k(labels, answers[head], k)) for k in (1, 5))]
        tf.raw_ops.AssignAddVariableOp(resource=self._sums.handle, value=tf.stack(values))

    def _update(self, gradient, variable, rate, steps) -> tf.Operation:
        """One step of `optimizer.SGD`, on the parameter server that holds the variable."""
        own, kernel = self._optimizer, variable.name == "kernel"
        index = own._get_variable_index(variable)
        weight, velocity = variable.value.handle, own.momentums[index].value.handle
        with tf.device(variable.value.device):
            rate = tf.cast(rate, gradient.dtype) * own.rate(variable.path)
            if kernel and (own.l2 or own.decay):
                value = tf.raw_ops.ReadVariableOp(resource=weight, dtype=gradient.dtype)
                gradient += own.l2 * value
                shrink = tf.raw_ops.AssignSubVariableOp(resource=weight, value=rate * own.decay * value)
            else:
                shrink = tf.no_op()
            with tf.control_dependencies([shrink]):
                last = tf.raw_ops.ResourceApplyKerasMomentum(
                    var=weight,
                    accum=velocity,
                    lr=rate,
                    grad=gradient,
                    momentum=tf.cast(own.momentum, gradient.dtype),
                    use_locking=True,
                    use_nesterov=own.nesterov,
                )
            if own.average is not None:
                with tf.control_dependencies([last]):
                    average = own._model_variables_moving_average[index].value.handle
                    value = tf.raw_ops.ReadVariableOp(resource=weight, dtype=gradient.dtype)
                    kept = tf.raw_ops.ReadVariableOp(resource=average, dtype=gradient.dtype)
                    share = 1 - own.average_momentum(steps)
                    last = tf.raw_ops.AssignAddVariableOp(resource=average, value=share * (value - kept))
        return last

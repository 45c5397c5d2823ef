"""Which devices share a run's steps: one, all of this machine, several machines or a TPU, on TensorFlow or on JAX.

The rest of the code holds an `Engine` and never asks which one.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from inception_v1.spec import check_choice
from training.data.pipeline import WHOLE, Share
from training.distribution.launch import ClusterError
from training.recipe import Recipe

NAMES = ("default", "mirrored", "multiworker", "parameter-server", "tpu", "data-parallel")
TIMEOUT = 300.0  # seconds in which all machines of a cluster must have come
HEARTBEAT = 15.0  # seconds of silence after which a machine counts as gone
LOST = (  # what TensorFlow raises when another machine is gone
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
Checked = TypeVar("Checked")
Make = Callable[[Share, str | None], tf.data.Dataset]


class Engine:
    """One device in this process.

    Attributes:
        name: of the strategy.
        replicas: devices that share a step, each with the recipe's batch size.
        index: number of this process; 0 is the chief, which alone writes.
        serves: whether this process only works for a coordinator (see `serve`).
    """

    name, replicas, index, serves = "default", 1, 0, False

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def scope(self) -> contextlib.AbstractContextManager:
        """Where the network is built and compiled."""
        return contextlib.nullcontext()

    def share(self) -> Share:
        """This process' share of evaluation."""
        return WHOLE

    def check(self, recipe: Recipe) -> None:
        """Raises ValueError for what cannot be trained here."""

    def dataset(self, make: Callable[[Share], tf.data.Dataset]) -> Any:
        """What Keras' `fit` takes, from a function that makes the batches of a share of each step."""
        return make(WHOLE)

    def fit(self, model: GoogLeNet, make: Make, service: str | None, **arguments: Any) -> dict[str, Any]:
        """Trains as `keras.Model.fit` does, which takes the other arguments.

        Args:
            model: built and compiled in `scope()`.
            make: makes the training batches of a share of each step, by a `tf.data` service unless that is None.
            service: address of that service, or None.

        Returns:
            What else was measured, for `metrics.json`.
        """
        dataset = self.dataset(lambda share: make(share, service))
        model.fit(dataset, shuffle=False, verbose=0, **arguments)  # the dataset shuffles itself
        return {}

    def gather(self, text: str) -> list[str]:
        """What every process says, in their order, once all have said it."""
        return [text]

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum of an array over the processes."""
        return np.sum([json.loads(text) for text in self.gather(json.dumps(values.tolist()))], axis=0)

    def together(self, check: Callable[[], Checked]) -> Checked:
        """Runs a check on every process, on the chief first, so that either all go on or none.

        Raises:
            ValueError: on every process, what the first that failed says.
        """
        result, error = None, ""
        for turn in (True, False):
            if turn == self.is_chief:
                try:
                    result = check()
                except ValueError as own:
                    error = str(own)
            if failed := [text for text in self.gather(error) if text]:
                raise ValueError(failed[0])
        return result  # type: ignore[return-value]

    def agree(self, what: dict[str, Any]) -> None:
        """Raises ValueError on every process unless all hold the same settings; says which differ."""
        chief, *others = (json.loads(text) for text in self.gather(json.dumps(what)))
        for index, other in enumerate(others, 1):
            if differ := [
                f"{name} {chief[name]!r} and {other[name]!r}" for name in chief if chief[name] != other[name]
            ]:
                raise ValueError(
                    f"Expected the same settings on every worker; Received: on worker 0 and {index}: "
                    f"{', '.join(differ)}."
                )

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Turns what is raised when another process is gone into a `ClusterError`."""
        yield


class OnTensorFlow(Engine):
    """The devices of this process, by a strategy of `tf.distribute`."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.replicas = strategy.num_replicas_in_sync

    def scope(self):
        return self._strategy.scope()

    def dataset(self, make):
        local = len(self._strategy.extended.worker_devices)
        share = Share(self.index * local, local, self.replicas)
        return self._strategy.distribute_datasets_from_function(lambda _: make(share))


class MultiWorker(OnTensorFlow):
    """The devices of several machines, by `tf.distribute.MultiWorkerMirroredStrategy`."""

    def __init__(self, resolver: tf.distribute.cluster_resolver.ClusterResolver, timeout: float):
        spec = resolver.cluster_spec()
        self._addresses = [*spec.as_dict().get("chief", []), *spec.as_dict().get("worker", [])]
        self.index = self._addresses.index(spec.task_address(resolver.task_type, resolver.task_id))
        await_all(self._others(), timeout, self._addresses[self.index])
        _watch(spec, timeout)
        with self.faults():
            super().__init__(tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver))

    def share(self):
        return Share(self.index, 1, len(self._addresses))

    def gather(self, text):
        # As numbers, since collectives carry no strings. Each device of a process says the same.
        codes = np.frombuffer(json.dumps([self.index, text]).encode(), "uint8").astype("int32")
        lengths = self._gathered(np.array([len(codes)], "int32"))
        said = np.split(self._gathered(codes), np.cumsum(lengths)[:-1])
        by_index = dict(json.loads(codes.astype("uint8").tobytes()) for codes in said)
        return [by_index[index] for index in sorted(by_index)]

    def _gathered(self, values: np.ndarray) -> np.ndarray:
        given = self._strategy.experimental_distribute_values_from_function(lambda _: tf.constant(values))
        return self._strategy.gather(given, axis=0).numpy()

    @contextlib.contextmanager
    def faults(self):
        try:
            yield
        except LOST as error:
            raise ClusterError(lost(gone(self._others()), error)) from error

    def _others(self) -> dict[str, str]:
        return {f"worker {index}": where for index, where in enumerate(self._addresses) if index != self.index}


class DataParallel(Engine):
    """The devices of one or several processes, by `keras.distribution` on JAX."""

    def __init__(self, distribution: keras.distribution.DataParallel):
        import jax

        self._distribution = distribution
        self.replicas, self.index, self._processes = jax.device_count(), jax.process_index(), jax.process_count()

    def scope(self):
        return self._distribution.scope()

    def share(self):
        return Share(self.index, 1, self._processes)

    def dataset(self, make):
        local = self.replicas // self._processes
        pieces = make(Share(self.index * local, local, self.replicas))
        return pieces.rebatch(local * pieces.element_spec[0].shape[0])  # Keras spreads it over these devices

    def fit(self, model, make, service, **arguments):
        with self.scope():
            return super().fit(model, make, service, **arguments)

    def gather(self, text):
        if self._processes == 1:
            return [text]
        from jax.experimental import multihost_utils

        codes = np.frombuffer(text.encode(), "uint8")
        lengths = multihost_utils.process_allgather(np.array(len(codes)))
        filled = np.zeros(max(lengths.max(), 1), "uint8")
        filled[: len(codes)] = codes
        said = multihost_utils.process_allgather(filled)
        return [row[:length].tobytes().decode() for row, length in zip(said, lengths, strict=True)]

    @contextlib.contextmanager
    def faults(self):
        import jax

        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if self._processes == 1:
                raise
            raise ClusterError(lost([], error)) from error


def make(name: str | None = None, timeout: float = TIMEOUT) -> Engine:
    """The engine of that name, once all its devices and machines are there.

    Args:
        name: one of `NAMES`; None for parameter-server or multiworker where TF_CONFIG (or Slurm) names such a cluster,
            on JAX for data-parallel where KERAS_DISTRIBUTION_NUM_PROCESSES (or Slurm) does, else default.
        timeout: seconds in which the other machines must have come.

    Raises:
        ValueError: an unknown name, one of the other backend, no TPU, or a TF_CONFIG that does not fit.
        ClusterError: a machine that did not come; it is named.
    """
    name = name or _by_environment()
    check_choice("strategy", name, NAMES)
    backend, wanted = keras.backend.backend(), "jax" if name == "data-parallel" else "tensorflow"
    if name != "default" and backend != wanted:
        raise ValueError(
            f"Expected KERAS_BACKEND={wanted} for strategy {name!r}; Received: Keras on {backend}, which takes "
            f"{'data-parallel' if backend == 'jax' else 'the others'}, or default."
        )
    engine = _made(name, timeout)
    engine.name = name
    return engine


def _made(name: str, timeout: float) -> Engine:
    match name:
        case "mirrored":
            return OnTensorFlow(tf.distribute.MirroredStrategy())
        case "multiworker":
            return MultiWorker(_resolver(name, "worker"), timeout)
        case "parameter-server":
            from training.distribution.parameter_server import ParameterServer

            return ParameterServer(_resolver(name, "chief", "worker", "ps"), timeout)
        case "tpu":
            return OnTensorFlow(_tpu())
        case "data-parallel":
            return DataParallel(_data_parallel())
    return Engine()


def _by_environment() -> str:
    if keras.backend.backend() == "jax":
        return "data-parallel" if _jax_processes() > 1 else "default"
    given = os.environ.get("TF_CONFIG") or "{}"
    try:
        jobs = tf.train.ClusterSpec(json.loads(given).get("cluster", {})).as_dict()
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"Expected TF_CONFIG to name a cluster, or nothing; Received: {given!r} ({error}).") from None
    if "ps" in jobs:
        return "parameter-server"
    several = sum(len(jobs.get(job, [])) for job in ("chief", "worker")) > 1
    return "multiworker" if several or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 else "default"


def _resolver(name: str, *needed: str) -> tf.distribute.cluster_resolver.ClusterResolver:
    """TensorFlow's reader of TF_CONFIG, or of Slurm's variables where there is none."""
    resolvers = tf.distribute.cluster_resolver
    if not os.environ.get("TF_CONFIG") and "SLURM_STEP_NUM_TASKS" in os.environ:
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        jobs = {"chief": 1, "ps": 1, "worker": tasks - 2} if "ps" in needed else {"worker": tasks}
        # Slurm itself shows each task its GPUs. The numbers keep the resolver from asking nvidia-smi.
        resolver = resolvers.SlurmClusterResolver(jobs, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False)
        resolver.cluster_spec()  # sets its task
        return resolver
    expected = f"Expected TF_CONFIG to name a cluster with {', '.join(needed)} for strategy {name!r}"
    try:
        resolver = resolvers.TFConfigClusterResolver()
        spec, task = resolver.cluster_spec(), (resolver.task_type, resolver.task_id)
        if not set(needed) <= set(spec.jobs) or task[0] is None or task[1] is None:
            raise ValueError(f"jobs {spec.jobs or 'none'}, task {task}")
        spec.task_address(*task)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{expected}; Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r} ({error}).") from None
    return resolver


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu="")
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(
            f"Expected a TPU for strategy 'tpu'; Received: none ({_first_line(error)}). On a TPU machine take "
            "KERAS_BACKEND=jax and data-parallel, or an installation of tensorflow-tpu."
        ) from None


def _jax_processes() -> int:
    """As Keras' variables say, or Slurm's, which JAX reads by itself."""
    return int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


def _data_parallel() -> keras.distribution.DataParallel:
    import jax

    if _jax_processes() > 1 and not jax.distributed.is_initialized():
        try:
            keras.distribution.initialize()
        except jax.errors.JaxRuntimeError as error:  # after five minutes of JAX' own
            raise ClusterError(f"Expected every process; {_first_line(error)}.") from error
    return keras.distribution.DataParallel(devices=keras.distribution.list_devices(), auto_shard_dataset=False)


def _watch(spec: tf.train.ClusterSpec, timeout: float) -> None:
    """Bounds how long a machine may be silent, at the start and later. TensorFlow has no public setting for that."""
    from tensorflow.python.distribute.multi_worker_util import coordination_leader
    from tensorflow.python.eager.context import context, coordination_config_pb2

    jobs = [job for job in ("chief", "worker") if job in spec.jobs]
    context().configure_coordination_service(
        service_type="standalone",
        service_leader=coordination_leader(spec),
        cluster_register_timeout_in_ms=int(1000 * timeout),
        heartbeat_timeout_in_ms=int(1000 * HEARTBEAT),
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=job, num_tasks=spec.num_tasks(job)) for job in jobs
        ],
    )


def await_all(tasks: dict[str, str], timeout: float, own: str | None = None) -> None:
    """Waits until something listens at the address of every task; TensorFlow itself would wait on and on.

    Args:
        tasks: name to "HOST:PORT".
        timeout: seconds.
        own: address at which this process listens meanwhile, so that the others see it.

    Raises:
        ClusterError: some did not come in time; they are named.
        ValueError: the own port is taken.
    """
    end = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        if own:
            try:
                stack.enter_context(socket.create_server(("", int(own.rpartition(":")[2]))))
            except OSError as error:
                raise ValueError(f"Expected a free port for this worker; Received: {own} ({error.strerror}).") from None
        while missing := silent(tasks):
            if time.monotonic() > end:
                raise ClusterError(f"Expected every machine within {timeout:g} s; missing: {', '.join(missing)}.")
            time.sleep(0.2)


def silent(tasks: dict[str, str]) -> list[str]:
    """Of these tasks (name to "HOST:PORT") those at whose address nothing listens."""
    without = []
    for name, address in tasks.items():
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            without.append(f"{name} at {address}")
    return without


def gone(tasks: dict[str, str]) -> list[str]:
    """As `silent`, once some are, or after five seconds: the system closes what a dead process held one by one."""
    end = time.monotonic() + 5
    while not (without := silent(tasks)) and time.monotonic() < end:
        time.sleep(0.1)
    return without


def lost(tasks: list[str], error: Exception) -> str:
    """What to say when these tasks are gone."""
    who = ", ".join(tasks) or "another process"
    return f"lost {who} ({_first_line(error)}); give the same command on all machines to go on"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]

"""The machines of a cluster: their addresses, whether they have joined, and which are lost."""

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from training.errors import ClusterError, UserError

TIMEOUT = 300.0  # seconds within which all machines of a cluster must have joined
SECONDS = 5.0  # for one question to another machine
ELSE = ", where something else answers"
HEARTBEAT = 15.0  # seconds of silence after which a machine counts as lost
WHERE = re.compile(r"\s|$|Graph execution error|Detected at node|File |<stack traces")  # lines of TensorFlow's messages
LOST = (  # what TensorFlow raises when another machine is lost
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


def read_jobs() -> dict[str, list[str]]:
    """Job to addresses, according to TF_CONFIG; {} without one.

    Raises:
        UserError: a TF_CONFIG that names no cluster.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        return tf.train.ClusterSpec(json.loads(text).get("cluster", {})).as_dict()
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"Expected TF_CONFIG to name a cluster, or nothing; Received: {text!r} ({error}).") from None


def make_resolver(name: str, *needed: str) -> tf.distribute.cluster_resolver.ClusterResolver:
    """TensorFlow's reader of TF_CONFIG, or of Slurm's variables where there is none.

    Args:
        name: of the strategy, for the message.
        *needed: jobs that the cluster must have.

    Raises:
        UserError: a TF_CONFIG that does not fit.
    """
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
        if not set(needed) <= set(spec.jobs) or task[0] not in {"chief", *needed} or task[1] is None:
            raise ValueError(f"jobs {spec.jobs or 'none'}, task {task}")
        spec.task_address(*task)
        _check_addresses(spec.as_dict())
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{expected}; Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r} ({error}).") from None
    return resolver


def _check_addresses(jobs: dict[str, list[str]]) -> None:
    """Raises ValueError unless every task has an address of its own, with a port."""
    tasks: dict[str, str] = {}
    for name, address in [
        (f"{job} {i}", where) for job, addresses in jobs.items() for i, where in enumerate(addresses)
    ]:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"{name} at {address!r}, which is no HOST:PORT")
        if address in tasks:
            raise ValueError(f"{tasks[address]} and {name}, both at {address}")
        tasks[address] = name


def bound_silence(spec: tf.train.ClusterSpec, timeout: float) -> None:
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
    context().coordination_service.cluster_register_with_barrier = True  # else the leader waits without end


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Lets SIGINT end this process at once while TensorFlow waits in C++ for other machines.

    It holds Python's global lock meanwhile, so that no handler and no thread would run. SIGTERM has to wait until it
    is done: TensorFlow installs a handler of its own, which ignores the signal, and which is removed at the end.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    except ValueError:  # not the main thread: somebody else has the signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def await_all(tasks: dict[str, str], timeout: float, find_problem: Callable[[str, str], str | None]) -> float:
    """Waits until every task is there; TensorFlow itself would take any service for one, and wait without end.

    Args:
        tasks: name to "HOST:PORT".
        timeout: seconds.
        find_problem: returns None where the task of a name is at an address, else "" or a clause that says what is.

    Returns:
        Seconds that are left.

    Raises:
        ClusterError: some did not join in time; they are named.
    """
    end = time.monotonic() + timeout
    while problems := {name: problem for name in tasks if (problem := find_problem(name, tasks[name])) is not None}:
        if time.monotonic() > end:
            missing = ", ".join(f"{name} at {tasks[name]}{problem}" for name, problem in problems.items())
            raise ClusterError(f"Expected every machine within {timeout:g} s; missing: {missing}.")
        time.sleep(0.2)
    return end - time.monotonic()


def find_server_problem(name: str, address: str) -> str | None:
    """Why no server of TensorFlow with the task of that name ("chief", "ps 0") is there, for `await_all`."""
    import grpc

    if unreachable({name: address}):
        return ""
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            status = channel.unary_unary("/tensorflow.WorkerService/GetStatus")(b"", timeout=SECONDS)
        except grpc.RpcError:
            return ELSE
    found = re.search(rb"/job:(\w+)/replica:0/task:(\d+)/", status)
    job, _, index = name.partition(" ")
    if found and found.groups() == (job.encode(), (index or "0").encode()):
        return None
    return f", where {' '.join(part.decode() for part in found.groups())} answers" if found else ELSE


def unreachable(tasks: dict[str, str]) -> list[str]:
    """The tasks (name to "HOST:PORT") at whose address nothing listens."""
    without = []
    for name, address in tasks.items():
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), SECONDS).close()
        except OSError:
            without.append(f"{name} at {address}")
    return without


def find_lost(tasks: dict[str, str]) -> list[str]:
    """Returns `unreachable` once it is not empty, or after 5 s: the system closes a dead process' ports one by one."""
    end = time.monotonic() + 5
    while not (without := unreachable(tasks)) and time.monotonic() < end:
        time.sleep(0.1)
    return without


def loss_message(tasks: list[str], error: Exception) -> str:
    """The message for lost tasks."""
    who = ", ".join(tasks) or "another process"
    return f"lost {who} ({first_line(error)}); give the same command on all machines to resume"


def first_line(error: Exception) -> str:
    """The first line of an error's message that says what happened, or the name of its type."""
    lines = (line for line in str(error).splitlines() if not WHERE.match(line))
    return next(lines, type(error).__name__)[:200].rstrip(": ")

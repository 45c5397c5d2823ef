"""Which strategy a run has: by name, or as the environment asks for."""

import os

import keras
import tensorflow as tf

from inception_v1.spec import check_choice
from training.distribution.cluster import TIMEOUT, make_resolver, read_jobs
from training.distribution.jax_strategy import DataParallel, count_processes
from training.distribution.parameter_server import ParameterServer
from training.distribution.strategy import SingleDevice, Strategy
from training.distribution.tensorflow_strategies import MultiWorker, TensorFlowStrategy, connect_tpu
from training.errors import UserError

NAMES = ("default", "mirrored", "multiworker", "parameter-server", "tpu", "data-parallel")


def make_strategy(name: str | None = None, timeout: float = TIMEOUT) -> Strategy:
    """The strategy of that name, once all its devices and machines are there.

    Args:
        name: one of `NAMES`; None for parameter-server or multiworker where TF_CONFIG (or Slurm) names such a cluster,
            on JAX for data-parallel where KERAS_DISTRIBUTION_NUM_PROCESSES (or Slurm) does, else default.
        timeout: seconds within which the other machines must have joined.

    Raises:
        UserError: an unknown name, one of the other backend, no TPU, or a TF_CONFIG that does not fit.
        ClusterError: a machine that did not join; it is named.
    """
    name = name or _by_environment()
    check_choice("strategy", name, NAMES)
    backend, wanted = keras.backend.backend(), "jax" if name == "data-parallel" else "tensorflow"
    if name != "default" and backend != wanted:
        raise UserError(
            f"Expected KERAS_BACKEND={wanted} for strategy {name!r}; Received: Keras on {backend}, which takes "
            f"{'data-parallel' if backend == 'jax' else 'the others'}, or default."
        )
    match name:
        case "mirrored":
            return TensorFlowStrategy(name, tf.distribute.MirroredStrategy())
        case "multiworker":
            return MultiWorker(name, make_resolver(name, "worker"), timeout)
        case "parameter-server":
            return ParameterServer(name, make_resolver(name, "chief", "worker", "ps"), timeout)
        case "tpu":
            return TensorFlowStrategy(name, connect_tpu())
        case "data-parallel":
            return DataParallel(name)
    return SingleDevice()


def _by_environment() -> str:
    if keras.backend.backend() == "jax":
        return "data-parallel" if count_processes() > 1 else "default"
    jobs = read_jobs()
    if "ps" in jobs:
        return "parameter-server"
    several = sum(len(jobs.get(job, [])) for job in ("chief", "worker")) > 1
    return "multiworker" if several or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 else "default"

"""What a second replica brings on this machine, and from that, what 1,024 would bring: python -m benchmarks scaling

Measured: a network of 64 px and half width trains by each strategy of `training.distribution` with one and with two
replicas or workers, each on a core of its own (parameter servers and the chief share those cores), on one batch that
stays in memory. With as many cores as replicas that is what the strategies cost, not what they gain. The table gives
images per second (median and range over epochs of a fixed number of steps, after a first one), the efficiency of two
against twice one, the bytes that a step moves (computed from the variables' shapes, and counted on the loopback
interface, with whatever else uses it), and the time in collectives: how much longer a step with two takes than with
one, and an all-reduce of such gradients alone.

Predicted: the same for the paper's network with both heads, 224 px and 32 images a replica, at 8, 64 and 1,024
replicas, for links whose speed is stated, by the formulas of `benchmarks.scaling_model`.

About 11 minutes on 2 cores.
"""

import dataclasses
import importlib.util
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console

from benchmarks import results
from benchmarks import scaling_model as model_of
from benchmarks.results import ResultTable
from benchmarks.scaling_model import Link

if TYPE_CHECKING:
    from training.distribution.strategy import Strategy

Result = dict[str, Any]  # as stored, of all runs or of one

NAME = "scaling"
LIMIT = 600  # seconds after which a process of a measurement is killed
REPLICAS, PAPER_BATCH, SERVERS, OVERLAP = (8, 64, 1024), 32, (8, 64), 2 / 3
GPU_IMAGES_PER_SECOND = 3000  # stated, as in benchmarks.input_pipeline: 32 images in 10.7 ms
LINKS = {  # stated, not measured: line rates, and latencies usual for TCP, for RDMA and inside of a machine
    "10 Gbit/s, 50 µs": Link(10e9 / 8, 50e-6),
    "100 Gbit/s, 5 µs": Link(100e9 / 8, 5e-6),
    "300 GB/s, 2 µs": Link(300e9, 2e-6),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One measurement."""

    strategy: str
    """One of `training.distribution.choose.NAMES`."""
    replicas: int = 1
    """Devices or workers."""
    variant: str = "batchnorm"
    pixels: int = 64
    width: float = 0.5
    classes: int = 10
    batch: int = 16
    """Images a replica and step: 0.1 s on one core, so that 10 MB of gradients are no small matter."""
    steps: int = 20
    """Of each replica in an epoch."""
    epochs: int = 6
    """Without the first, which traces the step."""

    @property
    def name(self) -> str:
        return f"{self.strategy} {self.replicas}"


PAPER = Run("default", 1, "paper", 224, 1.0, 1000, PAPER_BATCH, steps=1, epochs=4)
RUNS = [Run("default")] + [
    Run(strategy, replicas) for strategy in ("mirrored", "multiworker", "parameter-server") for replicas in (1, 2)
]
RUNS += [Run("data-parallel", replicas, steps=8, epochs=4) for replicas in (1, 2)]  # slow on CPUs


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    results.parser(NAME, __doc__).parse_args(arguments)
    result = measure()
    results.save(NAME, result)
    return tables(result)


# Measuring: one process or cluster after the other


def measure() -> dict[str, Any]:
    """Results of all runs by name, None where JAX is missing; under "load" the load average (1 minute) before each."""
    result: dict[str, Any] = {"about": results.about(), "settings": dataclasses.asdict(RUNS[0]), "runs": {}, "load": {}}
    console, began = Console(stderr=True), time.monotonic()
    for name, run in [("paper", PAPER), *((run.name, run) for run in RUNS)]:
        if run.strategy == "data-parallel" and importlib.util.find_spec("jax") is None:
            result["runs"][name] = None
            continue
        result["load"][name] = os.getloadavg()[0]
        result["runs"][name] = start(run)
        rate = statistics.median(result["runs"][name]["rates"])
        console.print(f"{time.monotonic() - began:5.0f} s  {name}: {rate:.1f} images/s", highlight=False)
    return result


def start(run: Run) -> dict[str, Any]:
    """Runs a measurement in processes of its own and returns what its chief wrote."""
    from training.distribution.launch import launch

    with tempfile.TemporaryDirectory() as folder:
        out, lines = Path(folder) / "result.json", list[str]()
        command = [sys.executable, "-m", "benchmarks.scaling", json.dumps(dataclasses.asdict(run)), str(out)]
        status = launch(
            command,
            run.replicas if run.strategy in ("multiworker", "parameter-server", "data-parallel") else 1,
            lines.append,
            parameter_servers=int(run.strategy == "parameter-server"),
            environment="jax" if run.strategy == "data-parallel" else "tensorflow",
        )
        if status or not out.is_file():
            raise RuntimeError("\n".join([f"{run.name} ended with status {status}:", *lines[-40:]]))
        return json.loads(out.read_text("utf-8"))


# In each process of a measurement


def work(run: Run, out: Path) -> None:
    """Trains as one task of the cluster; the chief writes what it measured to `out`."""
    signal.alarm(LIMIT)  # TensorFlow's cluster code swallows SIGTERM, not this
    use_own_cores(run)  # of which TensorFlow makes as many threads
    if run.strategy in ("default", "mirrored"):
        os.environ.pop("TF_CONFIG", None)  # one process, of no cluster
    import tensorflow as tf

    if run.strategy == "mirrored":
        devices = [tf.config.LogicalDeviceConfiguration()] * run.replicas
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)

    from inception_v1.atomic_files import write_json
    from training.distribution.choose import make_strategy

    distribution = make_strategy(run.strategy, timeout=60)
    if distribution.serves:
        distribution.serve()
        return
    result = train_with(run, distribution)
    if run.replicas > 1 and run.strategy != "parameter-server":
        result["all_reduce"] = all_reduce_seconds(distribution, result.pop("shapes"))
    result.pop("shapes", None)
    if distribution.is_chief:
        write_json(out, result)
    distribution.gather("finished")  # a process that ends early looks like one that died


def use_own_cores(run: Run) -> None:
    """A worker on one core, others and the devices of one process on as many as there are replicas."""
    task = json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {"type": "worker", "index": 0})
    index = int(os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", task["index"]))
    cores = sorted(os.sched_getaffinity(0))[: run.replicas]
    alone = task["type"] == "worker" and run.strategy != "mirrored"
    os.sched_setaffinity(0, {cores[index % len(cores)]} if alone else set(cores))


def train_with(run: Run, distribution: "Strategy") -> dict[str, Any]:
    """Trains by a strategy, as `training.train` does, and returns rates, step times, bytes and gradient shapes."""
    import keras
    import tensorflow as tf

    from inception_v1 import Spec, cost
    from training.data.pipeline import START
    from training.recipe import Recipe, with_global_batch
    from training.train import compile_model, head_loss_weights

    keras.utils.set_random_seed(0)
    shape = (run.pixels, run.pixels, 3)
    spec = Spec(run.variant, input_shape=shape, classes=run.classes, width_multiplier=run.width)
    recipe = Recipe(batch_size=run.batch, base_batch_size=run.batch, learning_rate=0.001, image_size=run.pixels)
    asynchronous = run.strategy == "parameter-server"
    steps = run.steps * (run.replicas if asynchronous else 1)  # its epochs count the steps of all workers
    with distribution.scope():
        weights = head_loss_weights(recipe, spec)
        model = compile_model(with_global_batch(recipe, distribution.replicas), spec, steps, weights)

    rng = np.random.default_rng(0)
    batch = rng.normal(size=(run.batch, *shape)).astype("float32"), rng.integers(run.classes, size=run.batch)
    clock = watch(keras.callbacks.Callback)
    other = distribution.fit(
        model,
        lambda *_: tf.data.Dataset.from_tensors(batch).repeat(),  # each per-replica batch is this one
        None,
        start=START,
        epochs=1 + run.epochs,
        steps=steps,
        callbacks=[clock],
    )
    gradients = [(v.shape, v.dtype) for v in model.trainable_variables]
    count = model_of.gradient_bytes(cost(spec).trainable)
    assert count == bytes_of(gradients), (count, gradients)
    seconds = np.diff(clock.ends)
    moved = count_moved(run, count, bytes_of([(v.shape, v.dtype) for v in model.non_trainable_variables]), batch)
    if asynchronous:  # the chief's copy after each epoch
        state = [*model.variables, *model.optimizer.variables]
        moved["copy for the chief"] = bytes_of([(v.shape, v.dtype) for v in state]) / steps
    images = run.batch * run.replicas * run.steps
    return {
        "rates": [images / value for value in seconds],  # images/s of each epoch
        "step": [value / run.steps for value in seconds],  # seconds of a replica's step, mean of each epoch
        "steps": clock.steps,  # seconds of every step
        "gradients": count,  # bytes
        "computed": moved,  # bytes a step of each kind, all processes together
        "loopback": [float(value) / steps for value in np.diff(clock.bytes)],  # bytes a step
        "shapes": gradients,
        **other,
    }


def watch(base: Any) -> Any:
    """A callback that notes the time and the bytes on loopback at the end of each epoch, and the time of each step."""

    class Clock(base):
        def __init__(self):
            super().__init__()
            self.ends, self.bytes, self.steps = [], [], []

        def on_train_batch_begin(self, batch, logs=None):
            self._began = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            if self.ends:  # not in the first epoch
                self.steps.append(time.perf_counter() - self._began)

        def on_epoch_end(self, epoch, logs=None):
            self.ends.append(time.perf_counter())
            self.bytes.append(loopback_bytes())

    return Clock()


def loopback_bytes() -> int:
    """Bytes sent over the loopback interface since the start, by every process; 0 where Linux does not say."""
    path = Path("/proc/net/dev")
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return sum(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


def bytes_of(tensors: Iterable[tuple[Sequence[int], Any]]) -> int:
    """Bytes of tensors of these (shape, dtype)."""
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in tensors)


def count_moved(run: Run, gradients: int, state: int, batch: Sequence[np.ndarray]) -> dict[str, float]:
    """Bytes that a step sends from device to device, by kind, all of them together."""
    if run.strategy == "parameter-server":  # a step of one worker
        return {
            "weights": gradients,
            "gradients": gradients,
            "running statistics": 2 * state,  # read and written
            "images": sum(part.nbytes for part in batch),
        }
    ring = 2 * (run.replicas - 1)  # n replicas send 2 (n - 1)/n each
    return {"gradients": ring * gradients, "running statistics": ring * state}


def all_reduce_seconds(
    distribution: "Strategy", gradients: Sequence[tuple[Sequence[int], Any]]
) -> dict[str, list[float]]:
    """Seconds of each of several all-reduces: of gradients of these shapes, of one tensor as large, of one number."""
    total = sum(int(np.prod(shape)) for shape, _ in gradients)
    kinds: dict[str, list[Sequence[int]]]
    kinds = {"gradients": [shape for shape, _ in gradients], "one tensor": [(total,)], "one number": [(1,)]}
    make = reducer_jax if distribution.name == "data-parallel" else reducer_tf
    result: dict[str, list[float]] = {}
    for kind, shapes in kinds.items():
        reduce = make(distribution, [np.ones(shape, "float32") for shape in shapes])
        result[kind] = []
        for repeat in range(13):
            began = time.perf_counter()
            reduce()
            if repeat > 2:  # the first trace, and wait for each other
                result[kind].append(time.perf_counter() - began)
    return result


def reducer_tf(distribution: "Strategy", values: Sequence[np.ndarray]) -> Callable[[], Any]:
    """A function that all-reduces these values as a training step does."""
    import tensorflow as tf

    with distribution.scope():
        strategy = tf.distribute.get_strategy()
        gradients = [
            strategy.experimental_distribute_values_from_function(lambda _, v=v: tf.constant(v)) for v in values
        ]

        def on_replica(parts):
            reduced = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, parts)
            return tf.add_n([tf.reshape(part, [-1])[0] for part in reduced])  # waits for all of them

        step = tf.function(lambda: strategy.run(on_replica, args=(gradients,)))
    return lambda: strategy.experimental_local_results(step())[0].numpy()


def reducer_jax(distribution: "Strategy", values: Sequence[np.ndarray]) -> Callable[[], Any]:
    """The same on JAX: sums over an axis that is sharded over the devices."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("replica",))
    sharded, replicated = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("replica",), ()))
    gradients = [jax.make_array_from_process_local_data(sharded, value[None]) for value in values]
    step = jax.jit(lambda parts: [part.sum(0) for part in parts], out_shardings=replicated)
    return lambda: jax.block_until_ready(step(gradients))


# Tables


def tables(result: Result) -> list[ResultTable]:
    return [measured_table(result), *predicted_tables(result, LINKS | {"gRPC on this machine": measured_link(result)})]


def page_tables(result: Result) -> list[ResultTable]:
    """The tables without the core as a replica, and with the larger number of servers alone."""
    shown = [measured_table(result), *predicted_tables(result, LINKS, SERVERS[-1:])]
    for table in shown[1:]:
        table.rows = [row[1:] for row in table.rows if "GPU" in row[0]]
        table.heads = table.heads[1:]
    return shown


def measured_table(result: Result) -> ResultTable:
    """Rows by strategy."""
    runs, settings = result["runs"], result["settings"]
    rows = []
    for strategy in dict.fromkeys(run.strategy for run in RUNS):
        one, two = runs[f"{strategy} 1"], runs.get(f"{strategy} 2")
        if one is None:
            rows.append([strategy, "not installed", *[""] * 6])
            continue
        row = [strategy, rate(one), "", "", *moved(one), "", ""]
        if two:
            pair = [statistics.median(run["rates"]) for run in (one, two)]
            row = [strategy, rate(one), rate(two), f"{pair[1] / pair[0] / 2:.0%}", *moved(two)]
            longer = statistics.median(two["step"]) - statistics.median(one["step"])
            alone = two.get("all_reduce", {}).get("gradients")
            row += [f"{1000 * longer:.0f}", f"{1000 * statistics.median(alone):.0f}" if alone else ""]
        rows.append(row)
    heads = ["strategy", "images/s, 1", "images/s, 2", "efficiency", "MB/step computed", "on loopback"]
    title = (
        f"{settings['variant']}, width {settings['width']:g}, {settings['pixels']} px, {settings['batch']} images a "
        f"replica, {runs['default 1']['gradients'] / 1e6:.2f} MB of gradients; {settings['epochs']} epochs of "
        f"{settings['steps']} steps"
    )
    return ResultTable(title, [*heads, "2 longer than 1, ms/step", "all-reduce alone, ms"], rows)


def rate(run: Result) -> str:
    rates = run["rates"]
    return f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})"


def moved(run: Result) -> list[str]:
    """Megabytes of a step, all processes together: computed, and seen on loopback."""
    computed = sum(run["computed"].values())
    return [f"{computed / 1e6:.1f}", f"{statistics.median(run['loopback']) / 1e6:.1f}"]


def predicted_tables(
    result: Result, links: Mapping[str, Link], server_counts: Sequence[int] = SERVERS
) -> Iterator[ResultTable]:
    """Rows by compute time and link, synchronous and asynchronous."""
    size = paper_bytes()
    heads = ["a step alone", "link"]
    synchronous, asynchronous = [], []
    for label, times in compute_times(result).items():
        waiting = [model_of.expected_maximum(times, 1) / model_of.expected_maximum(times, n) for n in REPLICAS]
        synchronous.append([label, "none: stragglers alone", *(f"{value:.0%}" for value in waiting)])
        for name, link in links.items():
            cells = [both(times, partial(model_of.synchronous_seconds, n, times, size, link)) for n in REPLICAS]
            synchronous.append([label, name, *cells])
            for servers in server_counts:
                seconds = partial(model_of.asynchronous_seconds, times=times, size=size, link=link, servers=servers)
                cells = [both(times, partial(seconds, n)) for n in REPLICAS]
                full = model_of.saturation(times, size, link, servers)
                asynchronous.append([label, name, str(servers), *cells, f"{full:,.0f}"])
    columns = [f"n = {n:,}" for n in REPLICAS]
    what = f"paper, both heads, 224 px, {PAPER_BATCH} images a replica, {size / 1e6:.1f} MB of gradients: efficiency"
    overlap = "without and with overlap with the backward pass"
    yield ResultTable(f"{what} of synchronous training {overlap}", [*heads, *columns], synchronous)
    yield ResultTable(
        f"{what} of asynchronous training {overlap}; staleness about n - 1",
        [*heads, "servers", *columns, "servers full from n ="],
        asynchronous,
    )


def both(times: Sequence[float], seconds: Callable[..., float]) -> str:
    """Efficiency without overlap and with that of the whole backward pass; once where they agree."""
    pair = [f"{model_of.efficiency(times, seconds(overlap=overlap)):.0%}" for overlap in (0.0, OVERLAP)]
    return " / ".join(dict.fromkeys(pair))


def paper_bytes() -> int:
    """Bytes of the gradients of the paper's network with both auxiliary heads."""
    from inception_v1 import Spec, cost

    return model_of.gradient_bytes(cost(Spec("paper")).trainable)


def measured_link(result: Result) -> Link:
    """What the all-reduce of two TensorFlow processes on this machine shows."""
    run = result["runs"]["multiworker 2"]
    small, large = (statistics.median(run["all_reduce"][kind]) for kind in ("one number", "one tensor"))
    return model_of.fit_link(2, small, large, run["gradients"])


def compute_times(result: Result) -> dict[str, list[float]]:
    """Seconds of a replica's step by what computes it. Both spread as the steps of one core do, divided by their mean.

    The GPU is a stated one.
    """
    steps = result["runs"]["default 1"]["steps"]
    relative = [step / statistics.mean(steps) for step in steps]
    core = statistics.median(result["runs"]["paper"]["step"])
    gpu = PAPER_BATCH / GPU_IMAGES_PER_SECOND
    return {
        label: [mean * value for value in relative]
        for label, mean in ((f"{1000 * gpu:.1f} ms (GPU)", gpu), (f"{core:.2f} s (this core)", core))
    }


if __name__ == "__main__":  # a process of a measurement
    work(Run(**json.loads(sys.argv[1])), Path(sys.argv[2]))

"""How fast web exports predict, beside onnxruntime as it is: python -m benchmarks web

The page of the paper's network (224 px, 1,000 classes) and that of the digits recipe, one image at a time, on one
thread and on all: in headless Chromium by the page's own worker, in Node by the same WebAssembly, and the same
`model.onnx` by native onnxruntime. They take turns in each of 20 rounds; the table gives the median of the rounds, each
of which is the median of five images. Weights are random, since speed does not depend on them. Needs the extra [test],
Node and Chromium; a row names what is missing.
"""

import contextlib
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks import results
from benchmarks.results import CORES, ResultTable
from benchmarks.rounds import SETTLE

NAME = "web"
NETWORKS = {"paper": "the paper's network, 224 px, 1,000 classes", "digits": "the digits run's network, 32 px"}
IMAGES = 5  # of a round
NATIVE, NODE, CHROMIUM = "native onnxruntime", "Node", "Chromium"
SCRIPT = Path(__file__).with_name("web_in_node.mjs")

START = """async () => {
  const worker = new Worker("worker.js", { type: "module" });
  window.ask = (message) => new Promise((resolve) => {
    worker.onmessage = ({ data }) => data.progress === undefined && resolve(data);
    worker.postMessage(message);
  });
  const { model, threads } = await window.ask({ start: true });
  const rgba = new Uint8ClampedArray(4 * model.size ** 2).map(() => 255 * Math.random());
  window.predict = async () => (await window.ask({ rgba, side: model.size })).milliseconds.network;
  return threads;
}"""

Timed = Callable[[], float]  # milliseconds of one image


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    options = results.parser(NAME, __doc__, rounds=20).parse_args(arguments)
    result = measure(options.rounds)
    results.save(NAME, result)
    return tables(result)


def measure(rounds: int) -> dict[str, Any]:
    """Milliseconds of every round by network and form; None where a form cannot run here."""
    result: dict[str, Any] = {"about": results.about(), "rounds": rounds, "runtime": _runtime(), "ms": {}}
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
            folder = Path(scratch, "web")
            write_page(name, folder)
            known = {
                **native_forms(folder),
                **node_forms(folder, stack),
                **chromium_forms(folder, stack),
            }
            result["ms"][name] = take_turns(known, rounds)
    return result


def write_page(name: str, folder: Path) -> None:
    """The page of a network with random weights."""
    from inception_v1 import GoogLeNet, build_googlenet
    from training.export.export_model import ExportModel
    from training.export.samples import Samples
    from training.export.web import site
    from training.presets import PRESETS
    from training.task import recipe_spec

    model = build_googlenet() if name == "paper" else GoogLeNet(**recipe_spec(PRESETS["digits"], 1, 10).to_dict())
    network = ExportModel(model, [str(number) for number in range(model.spec.classes)])
    site.write(folder, network, Samples([], np.zeros((0, *network.shape), "uint8"), None, "none"), unverified=True)


def native_forms(folder: Path) -> dict[str, Timed | None]:
    import onnxruntime

    description = json.loads((folder / "model.json").read_text("utf-8"))
    shape = (1, description["channels"], description["size"], description["size"])
    image = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")

    def timed(threads: int) -> Timed:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

        def predict() -> float:
            began = time.perf_counter()
            session.run(None, {"image": image})
            return 1000 * (time.perf_counter() - began)

        return predict

    return {form(NATIVE, threads): timed(threads) for threads in thread_counts()}


def node_forms(folder: Path, stack: contextlib.ExitStack) -> dict[str, Timed | None]:
    from training.export.web import fetch, runtime

    if runtime.node_version() is None:
        return {form(NODE, threads): None for threads in thread_counts()}
    return {
        form(NODE, threads): stack.enter_context(_node(fetch.FOLDER, folder, threads)) for threads in thread_counts()
    }


@contextlib.contextmanager
def _node(runtime: Path, folder: Path, threads: int) -> Iterator[Timed]:
    command = ["node", str(SCRIPT), str(runtime), str(folder), str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines, written = process.stdout, process.stdin

        def predict() -> float:
            written.write("\n")
            written.flush()
            return float(lines.readline())

        yield predict
        written.close()


def chromium_forms(folder: Path, stack: contextlib.ExitStack) -> dict[str, Timed | None]:
    browser: Any = importlib.import_module("tests.helpers.browser")
    if browser.CHROMIUM is None or not importlib.util.find_spec("playwright"):
        return {form(CHROMIUM, threads): None for threads in thread_counts()}
    started = stack.enter_context(browser.chromium())
    made: dict[str, Timed | None] = {}
    for threads in thread_counts():
        headers = browser.ISOLATED if threads > 1 else {}
        page = started.new_page()
        page.goto(stack.enter_context(browser.serve(folder, **headers)))
        assert page.evaluate(START) == threads
        made[form(CHROMIUM, threads)] = functools.partial(page.evaluate, "window.predict()")
    return made


def take_turns(known: dict[str, Timed | None], rounds: int) -> dict[str, list[float] | None]:
    """Milliseconds of every round of each form: the median of its images, after one that does not count."""
    spent: dict[str, list[float] | None] = {name: None if timed is None else [] for name, timed in known.items()}
    names = [name for name, timed in known.items() if timed is not None]
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            timed, values = known[name], spent[name]
            assert timed is not None
            assert values is not None
            time.sleep(SETTLE)
            timed()
            values.append(statistics.median(timed() for _ in range(IMAGES)))
    return spent


def thread_counts() -> list[int]:
    return sorted({1, CORES})


def form(runtime: str, threads: int) -> str:
    return f"{runtime}, {threads} {'thread' if threads == 1 else 'threads'}"


def tables(result: dict[str, Any]) -> list[ResultTable]:
    about = f"{results.machine(result['about'], 'onnxruntime')}, {result['runtime']}, load {result['about']['load']}"
    shown = []
    for network, spent in result["ms"].items():
        rows = []
        for name, values in spent.items():
            if values is None:
                rows.append([name, "not installed", "", ""])
                continue
            median, native = (statistics.median(spent[one] or [0]) for one in (name, _native(name)))
            rows.append([name, f"{median:.1f}", f"{min(values):.1f}-{max(values):.1f}", f"{median / native:.1f}"])
        title = f"In a browser, {NETWORKS[network]}, one image, medians of {result['rounds']} rounds; {about}"
        shown.append(ResultTable(title, ["form", "ms", "range", "of native"], rows))
    return shown


def _native(name: str) -> str:
    """The native form with as many threads as another one."""
    return f"{NATIVE}, {name.partition(', ')[2]}"


def _runtime() -> str:
    from training.export.web import runtime

    return f"{runtime.NAME}, Node.js {runtime.node_version() or 'not installed'}"

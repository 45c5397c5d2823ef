"""How fast exports predict, beside what torchvision exports: python -m benchmarks inference

Every form of one network takes its turn in each of 20 rounds, in an order drawn anew, at batch 1 and 32, with all
cores; each time its threads get a batch to wake up before the one that counts. The table gives the median time of a
batch, its range, and the size of the files. The `torchvision` variant stands beside torchvision's own network with the
same weights, exported by `torch.onnx.export` in a process of its own (PyTorch and TensorFlow do not share one well),
the `paper` variant beside forms of its response normalization. All forms of a network must agree before they are timed.
Needs `pip install -e '.[bench]'`; what is not installed is left out and named. About 7 minutes on 2 cores.
"""

import functools
import importlib.util
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks import results
from benchmarks.results import CORES, ResultTable
from benchmarks.rounds import SETTLE
from training import startup_notes

if TYPE_CHECKING:
    from inception_v1 import GoogLeNet
    from inception_v1.layers import LocalResponseNormalization
    from training.export.export_model import ExportModel

Arrays = Callable[[np.ndarray], np.ndarray]

NAME = "inference"
SIZE, CLASSES = 224, 1000
BASELINE, OPENVINO = "torchvision's ONNX, onnxruntime", "ONNX, NCHW, OpenVINO"
PACKAGES = ("tensorflow", "onnxruntime", "ai-edge-litert", "torch", "torchvision", "openvino")
AGREE = 1e-3  # largest difference of probabilities between float32 forms, as a fraction of the largest one
LOOSE = 0.1  # of those with fewer bits

EXPORT_TORCHVISION = """
import sys, torch, torchvision
torch.manual_seed(0)
net = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=True).eval()
torch.save(net.state_dict(), sys.argv[1])
net = torch.nn.Sequential(net, torch.nn.Softmax(1)).eval()
image = torch.zeros(2, 3, 224, 224)
torch.onnx.export(
    net, (image,), sys.argv[2], input_names=["image"], output_names=["probabilities"],
    dynamic_shapes=({0: torch.export.Dim("N")},), opset_version=18, external_data=False, dynamo=True,
)
"""


class Form(NamedTuple):
    """One way to run a network.

    Attributes:
        run: from pixels float32 `(batch, 224, 224, 3)` on the 0-255 scale, prepared by `prepare`, to probabilities.
        prepare: what is done to the pixels before the clock starts.
        size: of the files, bytes; None where there are none.
        within: of the first form's probabilities, as a fraction of the largest one.
        step: smallest difference between two of its probabilities, to which they are rounded.
    """

    run: Arrays
    prepare: Arrays
    size: int | None
    within: float = AGREE
    step: float = 0.0


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__, rounds=20)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="Batch sizes to measure.")
    parser.add_argument("--variants", nargs="+", default=["torchvision", "paper"], help="Variants to measure.")
    options = parser.parse_args(arguments)
    result = measure(options.variants, options.batches, options.rounds)
    results.save(NAME, result)
    return tables(result)


def measure(variants: Sequence[str], batches: Sequence[int], rounds: int) -> dict[str, Any]:
    """Milliseconds of every round, by variant, batch and form, and the sizes of the files in bytes."""
    result: dict[str, Any] = {"about": results.about(), "rounds": rounds, "sizes": {}, "ms": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for variant in variants:
            known = forms(variant, Path(scratch, variant))
            result["sizes"][variant] = {name: form.size for name, form in known.items()}
            result["ms"][variant] = {str(batch): measure_forms(known, batch, rounds) for batch in batches}
    return result


def forms(variant: str, folder: Path) -> dict[str, Form]:
    """Every form of a network that this machine can run; the first is the one that others are compared with."""
    from inception_v1 import build_googlenet
    from training.export.export_model import ExportModel

    folder.mkdir()
    model = build_googlenet(variant, aux=False, classes=CLASSES)
    known = torchvision_forms(model, folder) if variant == "torchvision" else {}
    network = ExportModel(model, [str(number) for number in range(CLASSES)])
    known |= onnx_forms("ONNX", network, folder) | int8_forms(network, folder)
    known |= tensorflow_forms(network, folder) | litert_forms(network)
    known |= openvino_forms(network, folder)
    if variant == "paper":
        for name, layer in (("matmul", banded_matmul()), ("native LRN", native())):
            with mock.patch("inception_v1.fold_batchnorm.ConvolvedNormalization", layer):
                other = ExportModel(model, network.labels)
            known |= onnx_forms(f"ONNX, {name}", other, folder, orders=("NCHW",))
    return known


def torchvision_forms(model: "GoogLeNet", folder: Path) -> dict[str, Form]:
    """torchvision's network as torch exports it; its weights go into ours."""
    from inception_v1 import load_weights

    if not importlib.util.find_spec("torchvision"):
        return {}
    weights, file = folder / "torchvision.pth", folder / "torchvision.onnx"
    subprocess.run([sys.executable, "-c", EXPORT_TORCHVISION, weights, file], check=True, capture_output=True)
    load_weights(model, weights)
    return {BASELINE: onnx_form(file, lambda x: nchw(signed(x)))}


def onnx_forms(
    name: str, network: "ExportModel", folder: Path, orders: Sequence[str] = ("NCHW", "NHWC")
) -> dict[str, Form]:
    import onnx

    from training.export import onnx_file

    made = {}
    for order in orders:
        file = folder / f"{name}-{order}.onnx".replace(" ", "-")
        onnx.save(onnx_file.convert(network, nchw=order == "NCHW"), file)
        made[f"{name}, {order}, onnxruntime"] = onnx_form(file, normalizer(network, order))
    return made


def int8_forms(network: "ExportModel", folder: Path) -> dict[str, Form]:
    """The ONNX files that `onnx_forms` has made, in int8."""
    import onnx

    from training.export import onnx_precisions

    made = {}
    for order in ("NCHW", "NHWC"):
        prepare, file = normalizer(network, order), folder / f"int8-{order}.onnx"
        onnx.save(onnx_precisions.to_int8(onnx.load(folder / f"ONNX-{order}.onnx"), prepare(random_pixels(8))), file)
        made[f"ONNX int8, {order}, onnxruntime"] = onnx_form(file, prepare, LOOSE)
    return made


def onnx_form(file: Path, prepare: Arrays, within: float = AGREE) -> Form:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return Form(lambda x: session.run(None, {"image": x})[0], prepare, file.stat().st_size, within)


def tensorflow_forms(network: "ExportModel", folder: Path) -> dict[str, Form]:
    import tensorflow as tf

    from training.export import savedmodel

    exported = folder / "saved_model"
    exported.mkdir()
    (exported / savedmodel.LABELS).write_text("".join(f"{name}\n" for name in network.labels))
    savedmodel.write(exported, network, top=5, float_only=False)
    served = tf.saved_model.load(str(exported)).signatures["predict_images"]
    spec = [tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)]
    classifier = network.model.classifier()
    traced = {
        "TensorFlow, trained network": tf.function(lambda x: classifier(x, training=False), spec),
        "TensorFlow, folded, variables": tf.function(lambda x: tf.nn.softmax(network.net(x)["main"]), spec),
        "TensorFlow, folded, constants": tf.function(lambda x: network(x)["probabilities"], spec),
    }
    normalized = normalizer(network, "NHWC")

    def run(step: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
        return step(tf.constant(images)).numpy()

    made = {name: Form(functools.partial(run, step), normalized, None) for name, step in traced.items()}
    size = sum(path.stat().st_size for path in exported.rglob("*") if path.is_file())

    def serve(pixels: np.ndarray) -> np.ndarray:
        return served(images=tf.constant(pixels))["probabilities"].numpy()

    return made | {"SavedModel, predict_images": Form(serve, lambda x: x, size)}


def litert_forms(network: "ExportModel") -> dict[str, Form]:
    from ai_edge_litert.interpreter import Interpreter

    from training.export import litert

    def run(runner: Callable[..., Any], images: np.ndarray) -> np.ndarray:
        return np.array(runner(image=images)["probabilities"])

    made, normalized = {}, normalizer(network, "NHWC")
    for precision in litert.PRECISIONS:
        if precision == "int8" and litert.int8_refusal(network.model.spec):
            continue
        content = litert.convert(network, precision, representative=normalized(random_pixels(8)))
        with startup_notes.without_lines(rb"INFO: Created TensorFlow Lite"):
            runner = Interpreter(model_content=content, num_threads=CORES).get_signature_runner()
        within = AGREE if precision == "float32" else LOOSE
        step = 1 / 256 if precision == "int8" else 0.0
        made[f"LiteRT {precision}"] = Form(functools.partial(run, runner), normalized, len(content), within, step)
    return made


def openvino_forms(network: "ExportModel", folder: Path) -> dict[str, Form]:
    if not importlib.util.find_spec("openvino"):
        return {}
    import openvino

    file = folder / "ONNX-NCHW.onnx"
    compiled = openvino.Core().compile_model(
        file, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": CORES}
    )
    return {OPENVINO: Form(lambda x: compiled(x)[0], normalizer(network, "NCHW"), file.stat().st_size)}


def banded_matmul() -> "type[LocalResponseNormalization]":
    """Response normalization by a matmul, as in training."""
    from inception_v1.layers import LocalResponseNormalization

    return LocalResponseNormalization


def native() -> "type[LocalResponseNormalization]":
    """Response normalization by TensorFlow's own operation."""
    import tensorflow as tf

    from inception_v1.layers import LocalResponseNormalization

    class Native(LocalResponseNormalization):
        def call(self, x):
            return tf.nn.local_response_normalization(x, self.size // 2, self.k, self.alpha / self.size, self.beta)

    return Native


def measure_forms(known: dict[str, Form], batch: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round of each form, after one that does not count and checks that they agree."""
    pixels = random_pixels(batch)
    inputs = {name: np.ascontiguousarray(form.prepare(pixels)) for name, form in known.items()}
    first = next(iter(known))
    expected = known[first].run(inputs[first])
    spent: dict[str, list[float]] = {name: [] for name in known}
    for name, form in known.items():
        difference = np.abs(form.run(inputs[name]) - expected).max()
        assert difference <= form.within * expected.max() + form.step / 2, (
            f"{name} differs from {first} by {difference}"
        )
    order, rng = list(known), random.Random(0)
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            time.sleep(SETTLE)
            known[name].run(inputs[name])
            began = time.perf_counter()
            known[name].run(inputs[name])
            spent[name].append(1000 * (time.perf_counter() - began))
    return spent


def tables(result: dict[str, Any]) -> list[ResultTable]:
    about = results.machine(result["about"], *PACKAGES)
    shown = []
    for variant, batches in result["ms"].items():
        for batch, spent in batches.items():
            rows = []
            for name, values in sorted(spent.items(), key=lambda item: statistics.median(item[1])):
                median, size = statistics.median(values), result["sizes"][variant][name]
                rate, megabytes = f"{1000 * int(batch) / median:.0f}", f"{size / 1e6:.1f}" if size else ""
                rows.append([name, f"{median:.1f}", f"{min(values):.1f}-{max(values):.1f}", rate, megabytes])
            rows += [[name, "not installed", "", "", ""] for name in _missing(variant, spent)]
            title = f"Inference, `{variant}`, batch {batch}, medians of {result['rounds']} rounds; {about}"
            shown.append(ResultTable(title, ["form", "ms a batch", "range", "images/s", "MB"], rows))
    promised = [[name, f"{ratio:.2f}"] for name, ratio in bars(result)]
    return [*shown, ResultTable("Inference, promised ratios", ["ratio", "measured"], promised)]


def _missing(variant: str, spent: dict[str, list[float]]) -> list[str]:
    return [name for name in (*([BASELINE] if variant == "torchvision" else []), OPENVINO) if name not in spent]


def bars(result: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The promised ratios, with their bounds, and what they are."""
    for variant, batches in result["ms"].items():
        for batch, spent in batches.items():
            middle = {name: statistics.median(values) for name, values in spent.items()}
            own = min(middle["ONNX, NCHW, onnxruntime"], middle["ONNX, NHWC, onnxruntime"])
            best = min(value for name, value in middle.items() if name.startswith("TensorFlow"))
            title = f"`{variant}`, batch {batch}: "
            yield (
                title + "SavedModel / best TensorFlow form (at most 1.10)",
                middle["SavedModel, predict_images"] / best,
            )
            if BASELINE in middle:
                yield title + "torchvision's ONNX / ours (at least 1)", middle[BASELINE] / own
            if int8 := [value for name, value in middle.items() if name.startswith("ONNX int8")]:
                yield title + "ONNX / int8 ONNX (at least 1.8 with VNNI)", own / min(int8)
            if "ONNX, native LRN, NCHW, onnxruntime" in middle:
                native_ = middle["ONNX, native LRN, NCHW, onnxruntime"]
                yield title + "native LRN / ours (at least 1.2)", native_ / own


def normalizer(network: "ExportModel", order: str) -> Arrays:
    """From pixels to what a network takes."""

    def normalize(pixels: np.ndarray) -> np.ndarray:
        images = (pixels - network.mean) / network.std
        return nchw(images) if order == "NCHW" else images

    return normalize


def signed(pixels: np.ndarray) -> np.ndarray:
    return pixels / np.float32(127.5) - 1


def nchw(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2)


def random_pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (batch, SIZE, SIZE, 3)).astype("float32")

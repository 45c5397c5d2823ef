"""A trained network as a folder of static files: a page on which anyone can try it, in any browser."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from inception_v1.atomic_files import write_json
from training.export import onnx_file
from training.export.export_model import FEATURES, ExportModel
from training.export.samples import Samples
from training.export.web import runtime

FOLDER = "web"  # of a version
PAGE = Path(__file__).with_name("page")
MODEL, DESCRIPTION, EXAMPLES = "model.onnx", "model.json", "examples"
MOST_EXAMPLES, EXAMPLE_BYTES = 12, 1_000_000
TOP = 5  # classes of a head that the page lists
LARGEST_DRAWING = 64  # pixels of a gray network's images that a pointer can draw


def write(folder: Path, network: ExportModel, samples: Samples, unverified: bool) -> dict[str, Any]:
    """Writes the page without the facts of the model card (see `add_facts`).

    Args:
        folder: new, for the files.
        network: what the page runs.
        samples: images of the test split, some of which the page offers as examples.
        unverified: whether the page will not be run in Node.

    Returns:
        Its entry of the model card.
    """
    shutil.copytree(PAGE, folder)
    runtime.copy_runtime(folder / "onnxruntime")
    model = onnx_file.convert(network, nchw=True, features=True)
    onnx.save(model, folder / MODEL)
    write_json(folder / DESCRIPTION, _description(folder, network, samples))
    return {
        "file": f"{FOLDER}/{MODEL}",
        "page": f"{FOLDER}/index.html",
        "layout": "NCHW",
        "pixels": "normalized",
        "opset": onnx_file.OPSET,
        "runtime": runtime.NAME,
        "verified_in": None if unverified else f"Node.js {runtime.node_version()}",
        **onnx_file.describe(model),
    }


def add_facts(folder: Path, card: dict[str, Any]) -> None:
    """Writes what the page tells of the network, from its model card, into the page's `model.json`."""
    known = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    write_json(folder / DESCRIPTION, known | {"name": card["name"], "facts": list(_facts(card))})


def _description(folder: Path, network: ExportModel, samples: Samples) -> dict[str, Any]:
    """What the page's scripts know of the network."""
    (folder / EXAMPLES).mkdir()
    return {
        "size": network.size,
        "channels": network.channels,
        "mean": network.mean.tolist(),
        "std": network.std.tolist(),
        "classes": network.labels,
        "top": min(TOP, len(network.labels)),
        "heads": [{"name": head, "output": output} for output, head in network.outputs.items()],
        "model": {"file": MODEL, "bytes": (folder / MODEL).stat().st_size},
        "maps": _classifier(folder / MODEL, network),
        "drawing": _drawing(network, samples),
        "examples": list(_examples(folder / EXAMPLES, network, samples)),
        "examples_from": _without_path(samples.source),
        "runtime": runtime.NAME,
        "facts": [],
    }


def _classifier(file: Path, network: ExportModel) -> dict[str, Any]:
    """Where the file has the main classifier's kernel, which turns the feature maps into class activation maps."""
    head = network.net.get_layer("main_logits")
    kernel = np.asarray(head.kernel, "<f4")
    offset = file.read_bytes().find(kernel.tobytes())
    assert offset >= 0, "the kernel is not in the file as it is"
    bias = np.zeros(kernel.shape[1], "f4") if head.bias is None else np.asarray(head.bias)
    return {
        "output": FEATURES,
        "kernel": {"offset": offset, "shape": list(kernel.shape)},
        "bias": bias.tolist(),
    }


def _drawing(network: ExportModel, samples: Samples) -> dict[str, Any] | None:
    """How a drawing becomes an image like those of the test split, or None where the network takes none.

    It has their height and width in pixels, and the color of their borders as paper.
    """
    if network.channels != 1 or network.size > LARGEST_DRAWING:
        return None
    pixels, paper = network.size, 0
    if samples.labels is not None:
        with Image.open(io.BytesIO(samples.encoded[0])) as image:
            pixels = min(*image.size, LARGEST_DRAWING)
        edges = [samples.pixels[:, rows] for rows in (0, -1)] + [samples.pixels[:, :, columns] for columns in (0, -1)]
        paper = 255 if np.median(np.concatenate([edge.ravel() for edge in edges])) > 127 else 0
    return {"pixels": pixels, "paper": paper, "ink": 255 - paper}


def _examples(folder: Path, network: ExportModel, samples: Samples) -> Iterator[dict[str, Any]]:
    """Writes images as evaluation sees them, of as many classes as possible, and describes them."""
    written = 0
    for number in _of_many_classes(samples)[:MOST_EXAMPLES]:
        pixels = samples.pixels[number]
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if network.channels == 1 else pixels).save(buffer, "PNG", optimize=True)
        written += len(buffer.getvalue())
        if written > EXAMPLE_BYTES:
            return
        name = f"{number}.png"
        (folder / name).write_bytes(buffer.getvalue())
        label = None if samples.labels is None else int(samples.labels[number])
        yield {"file": f"{EXAMPLES}/{name}", "label": label}


def _of_many_classes(samples: Samples) -> list[int]:
    """Numbers of the images, the first one of each class before the second of any."""
    if samples.labels is None:
        return list(range(len(samples.pixels)))
    seen: dict[int, int] = {}
    order = []
    for number, label in enumerate(samples.labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        order.append((seen[label], label, number))
    return [number for *_, number in sorted(order)]


def _facts(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the page tells of the network, from the model card."""
    network, pixels, training = card["network"], card["pixels"], card["training"]
    yield "Network", f"GoogLeNet (Inception v1), variant {network['variant']}, heads {', '.join(network['heads'])}"
    yield "Parameters", f"{network['parameters']:,}"
    yield "Multiply-accumulates for an image", f"{network['multiply_accumulates']:,}"
    yield "Classes", f"{len(card['classes']):,}"
    height, width, _ = pixels["shape"]
    yield "Pixels", f"{height}x{width}, {pixels['colors']}: {pixels['preparation']}"
    if training:
        yield "Trained on", f"{_without_path(training['source'])}, {training['epochs']} epochs ({training['status']})"
        for head, scores in training.get("heads", {}).items():
            yield f"Top-1 of {head}", f"{scores['top1']:.2%} of {training['images']} test images"
    web, near = card["formats"]["web"], card["parity"]["web"]
    where = web["verified_in"] or "onnxruntime without a browser's WebAssembly (unverified in Node.js)"
    yield (
        "Compared with Keras",
        f"probabilities within {near['probabilities']:.1e} on {near['images']} images of "
        f"{_without_path(card['compared_on'])}, in "
        f"{where}",
    )
    yield "Runs on", f"{web['runtime']}, WebAssembly"
    yield "Exported", f"{card['made']}, version {card['version']}"


def _without_path(source: str) -> str:
    """A source, or a split of one, as strangers may read it: of a folder its name alone."""
    before, folder, path = source.partition("folder:")
    return f"{before}the folder {Path(path).name}" if folder else source

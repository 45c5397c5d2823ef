"""Whether every form of an export computes what the Keras model does, found out in a fresh process."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.errors import VerificationError
from training.evaluation.metrics import image_scores
from training.export.export_model import ExportModel
from training.export.model_card import formats_of
from training.export.samples import COMPARED, Samples

FRESH_PROCESS = Path(__file__).with_name("fresh_process")
OF_MAPS = "of_maps"  # a further output of web pages: the probabilities that class activation maps add up to
TIE = 1e-5  # classes whose probabilities are closer than this may change places


class Bound(NamedTuple):
    """How far a form of the network may be from the Keras model."""

    logits: float  # largest difference of logits, over their largest size
    same_class: float  # smallest fraction of the images that keep their best class
    layer: float  # likewise to `logits`, of a single layer that is still right
    probabilities: float = 1.0  # largest difference of probabilities


EXACT = Bound(1e-4, 1.0, 3e-5)  # float32 in another order of summing: about 1e-6 where logits differ by their size
BOUNDS = {
    "web": EXACT._replace(probabilities=1e-4),
    "onnx/float16": Bound(5e-2, 0.9, 5e-2),  # activations of 11 bits too
    "onnx/int8": Bound(np.inf, 0.75, 0.5),
    "litert/float16": Bound(2e-2, 0.9, 2e-2),  # weights of 11 bits
    "litert/dynamic": Bound(np.inf, 0.75, 0.5),  # what 8 bits cost depends on the network: the model card reports it
    "litert/int8": Bound(np.inf, 0.75, 0.5),
}


def verify(folder: Path, card: dict[str, Any], network: ExportModel, samples: Samples) -> dict[str, Any]:
    """Runs every form of an export in a fresh process and compares it with the Keras model.

    Args:
        folder: with the files and the model card.
        card: content of the model card.
        network: what the export was made from.
        samples: images to compare on.

    Returns:
        {"compared_on": where the images come from, "parity": {form: as `compare_probabilities` returns}}, and where
        there are labels "accuracy": {"keras", each LiteRT form, and those of ONNX beside float32: numbers}.

    Raises:
        VerificationError: a form does not load, or differs by more than its bound; the first layer that does is named.
    """
    forms = formats_of(card)
    outputs = _in_fresh_process(folder, samples, "outputs", forms)
    expected = network.expected(samples.pixels)
    expected[OF_MAPS] = expected["probabilities"]
    parity: dict[str, dict[str, float]] = {}
    for form in forms:
        bound = BOUNDS.get(form, EXACT)
        if missing := [output for output in network.outputs if f"{form}:{output}" not in outputs]:
            raise VerificationError(
                f"Expected {form} to have the outputs {list(network.outputs)}; Received: none of {missing}; "
                "the export is deleted."
            )
        of_maps = [OF_MAPS] if f"{form}:{OF_MAPS}" in outputs else []  # where the page itself has run
        found = {output: outputs[f"{form}:{output}"] for output in (*network.outputs, *of_maps)}
        near = parity[form] = compare_probabilities(found, expected)
        if not is_within(near, bound):
            layer = _first_difference(folder, form, network, samples, bound)
            raise VerificationError(
                f"Expected {form} to agree with the Keras model (logits within {bound.logits:g} of their size, the "
                f"same class on {bound.same_class:.0%} of the images{_of_probabilities(bound)}); Received: "
                f"{near['logits']:.2g} and {near['same_class']:.0%} (probabilities within "
                f"{near['probabilities']:.2g}), first different {layer}; the export is deleted."
            )
    known = {"compared_on": samples.source, "parity": parity}
    scored = [form for form in forms if form.startswith(("litert/", "onnx/"))]
    if samples.labels is None or not scored:
        return known
    accuracy = {"keras": _accuracy(expected["probabilities"], samples.labels)}
    accuracy |= {form: _accuracy(outputs[f"{form}:probabilities"], samples.labels) for form in scored}
    return known | {"accuracy": accuracy}


def is_within(near: dict[str, float], bound: Bound) -> bool:
    """Whether what `compare_probabilities` found is within a bound."""
    return (
        near["logits"] <= bound.logits
        and near["same_class"] >= bound.same_class
        and near["probabilities"] <= bound.probabilities
    )


def _of_probabilities(bound: Bound) -> str:
    return f", probabilities within {bound.probabilities:g}" if bound.probabilities < 1 else ""


def compare_probabilities(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """How far probabilities are from the Keras model's, over the images that `found` has.

    Args:
        found: {output: `(images, classes)`}.
        expected: the same, of as many images or more.

    Returns:
        {"images": count, "probabilities": largest difference, "logits": largest difference of their logarithms over the
        largest of these (or 1), "same_class": fraction of the images whose best class is the same, or within 1e-5 of
        it}; the worst of the outputs.
    """
    rows = []
    for output, p in found.items():
        q = expected[output][: len(p)]
        log_p, log_q = (np.log(np.maximum(v, 1e-30)) for v in (p, q))
        size = max(1.0, float(np.abs(log_q).max()))
        same = q[np.arange(len(q)), p.argmax(axis=1)] >= q.max(axis=1) - TIE
        rows.append((float(np.abs(p - q).max()), float(np.abs(log_p - log_q).max()) / size, -float(same.mean())))
    worst = [float(np.max(column)) if np.isfinite(column).all() else np.inf for column in zip(*rows, strict=True)]
    images = len(next(iter(found.values())))
    return {"images": images, "probabilities": worst[0], "logits": worst[1], "same_class": -worst[2]}


def _in_fresh_process(folder: Path, samples: Samples, kind: str, forms: Iterable[str]) -> dict[str, np.ndarray]:
    """Runs `fresh_process`, and returns its results."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs, outputs = Path(scratch, "samples.npz"), Path(scratch, "results.npz")
        few = samples.encoded[:COMPARED]
        np.savez(
            inputs,
            pixels=samples.pixels,
            encoded=np.frombuffer(b"".join(few), "uint8"),
            ends=np.cumsum([len(image) for image in few]),
            few=len(few),
        )
        command = [sys.executable, str(FRESH_PROCESS), str(folder), str(inputs), str(outputs), kind, *forms]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise VerificationError(f"Expected the export to run in a fresh process; Received: {last}; it is deleted.")
        with np.load(outputs) as results:
            return dict(results)


def _first_difference(folder: Path, form: str, network: ExportModel, samples: Samples, bound: Bound) -> str:
    """The first layer of a form that differs from the Keras model's, in words."""
    values = _in_fresh_process(folder, samples, "tensors", [form])
    for layer, expected in network.layers(samples.pixels[:2]).items():
        found = [value for name, value in values.items() if _is_of(layer, name) and value.shape == expected.shape]
        size = max(float(np.abs(expected).max()), 1e-6)
        if found and not float(np.abs(found[-1] - expected).max()) <= bound.layer * size:
            return f"at layer {layer.removesuffix('_relu')}"
    return "outside of the network's layers"


def _is_of(layer: str, tensor: str) -> bool:
    """Whether a tensor's name denotes a layer's output; converters join names and number them."""
    return any(re.fullmatch(rf"{re.escape(layer)}(_\d+)?", part) for part in re.split("[/;:]", tensor))


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    top1, top5, loss = image_scores(probabilities, labels).mean(axis=1).tolist()
    return {"images": len(labels), "top1": top1, "top5": top5, "loss": loss}

"""Exports: a trained network as files for servers and devices, each compared with it before it is called done."""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import onnx
import tensorflow as tf

from inception_v1.atomic_files import folder_written_whole
from inception_v1.spec import check_choice
from training import transfer
from training.data import pipeline, sources
from training.data.decoding import decode
from training.evaluation import evaluate
from training.export import fresh_process as reload
from training.export import litert, onnx_file
from training.export import model_card as cards
from training.export import savedmodel as saved_model
from training.export.export_model import Inference
from training.report.figures import check_folder
from training.run_folder import RunFolder, write_text

TARGETS = ("savedmodel", "onnx", "litert")
COMPARED = 64  # images that every form of the network sees before an export is done
SCORED = 2000  # images of the test split on which the accuracy of each LiteRT precision is measured
REPRESENTATIVE = 200  # images of the training split on which int8's ranges are measured
TIE = 1e-5  # classes whose probabilities are closer than this may change places
LOCK = ".lock"


class Bound(NamedTuple):
    """How far a form of the network may be from the Keras model."""

    logits: float  # largest difference of logits, over their largest size
    same_class: float  # smallest share of the images that keep their best class
    layer: float  # likewise to `logits`, of a single layer that is still right


EXACT = Bound(1e-4, 1.0, 3e-5)  # float32 in another order of summing: about 1e-6 where logits differ by their size
BOUNDS = {
    "litert/float16": Bound(2e-2, 0.9, 2e-2),  # weights of 11 bits
    "litert/dynamic": Bound(np.inf, 0.75, 0.5),  # what 8 bits cost is the network's own affair: the card tells
    "litert/int8": Bound(np.inf, 0.75, 0.5),
}


class Options(NamedTuple):
    """What `export` was asked for, as it describes it."""

    targets: tuple[str, ...]
    top: int
    float_only: bool
    batching: int | None
    nchw: bool
    preprocessing: bool
    precisions: Sequence[str] | None


class Samples(NamedTuple):
    """Real pictures.

    Attributes:
        encoded: as they lie in their files.
        pixels: uint8 `(images, size, size, channels)`, as evaluation sees them.
        labels: int64 `(images,)`, or None.
        source: where they come from.
    """

    encoded: list[bytes]
    pixels: np.ndarray
    labels: np.ndarray | None
    source: str


def export(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    to: str | Sequence[str] = "savedmodel",
    keep_aux: bool = False,
    float_only: bool = False,
    top: int = 5,
    batching: int | None = None,
    nchw: bool = False,
    preprocessing: bool = False,
    precisions: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    version: int | None = None,
) -> dict[str, Any]:
    """Writes a trained network as `OUT/VERSION/`, reloads it in a fresh process and compares it with the Keras model.

    Batch normalisation is folded into the convolutions, and weights are stored once a file. Beside the files lie
    `labels.txt`, `model_card.json` and `README.md`, and in `OUT` a `models.config` for TF Serving.

    Args:
        source: folder of a run, whose best model is taken, or a `.keras` file.
        out: folder of the exports of this name; made if absent.
        to: "savedmodel", "onnx" and "litert", as a sequence or between commas.
        keep_aux: whether the auxiliary heads are outputs too ("aux1", "aux2").
        float_only: whether the SavedModel takes float32 pixels alone, for runtimes that cannot decode pictures.
        top: classes an image that the SavedModel names, best first; fewer where the network has fewer.
        batching: largest batch that TF Serving may put together from several requests; None writes no such file.
        nchw: whether the ONNX file takes `(N, channels, size, size)`.
        preprocessing: whether the ONNX and LiteRT files take pixels on the 0-255 scale, not normalised ones.
        precisions: of LiteRT, of `litert.PRECISIONS`; None for all that the network allows.
        class_names: in label order; None for those of the run or file.
        version: a positive integer; None for the next free one.

    Returns:
        What `model_card.json` holds.

    Raises:
        ValueError: no trained network, a bad argument, or an existing version: nothing is written then. Or a form that
            does not agree with the Keras model, which is deleted; the message names the layer where they part.
        OSError: the disk is full or the folder cannot be written; nothing of the version is left.
    """
    given = {"float_only": float_only, "batching": batching, "nchw": nchw, "precisions": precisions}
    options = Options(_checked_targets(to), top, preprocessing=preprocessing, **given)
    _check_options(options, version)
    folder = Path(out)
    _check_place(folder, version)
    run, network = _read(source, class_names, keep_aux)
    options, refused = _with_precisions(options, run, network)
    samples = _test_samples(run, network, SCORED if options.precisions else COMPARED)
    with _alone(folder):
        version = version or _next_version(folder)
        with folder_written_whole(folder / str(version)) as part:
            card = cards.begun(str(source), folder.name, version, run, network) | {"refused": refused}
            with _as_os_error():
                card["formats"] = _write(part, folder.name, run, network, options)
            _write_card(part, card)
            card |= verified(part, card, network, samples)
            card["files"] = _files(part)
            _write_card(part, card)
        if "savedmodel" in options.targets:
            write_text(folder / "models.config", saved_model.models_config(folder.name))
    return card


def verified(folder: Path, card: dict[str, Any], network: Inference, samples: Samples) -> dict[str, Any]:
    """Runs every form of an export in a fresh process and compares it with the Keras model.

    Args:
        folder: with the files and the card.
        card: what it says.
        network: what the export was made from.
        samples: pictures to compare on.

    Returns:
        {"compared_on": where the pictures come from, "parity": {form: as `compared` returns}}, and where there are
        labels "accuracy": {"keras" and each LiteRT form: numbers}.

    Raises:
        ValueError: a form does not load, or differs by more than its bound; the first layer that does is named.
    """
    answers = _in_fresh_process(folder, samples)
    expected = network.expected(samples.pixels)
    parity: dict[str, dict] = {}
    for form in reload.forms(card):
        bound = BOUNDS.get(form, EXACT)
        found = {output: answers[f"{form}:{output}"] for output in network.outputs}
        near = parity[form] = compared(found, expected)
        if not (near["logits"] <= bound.logits and near["same_class"] >= bound.same_class):
            layer = _first_difference(folder, form, network, samples, bound)
            raise ValueError(
                f"Expected {form} to agree with the Keras model (logits within {bound.logits:g} of their size, the "
                f"same class on {bound.same_class:.0%} of the images); Received: {near['logits']:.2g} and "
                f"{near['same_class']:.0%}, first different {layer}; the export is deleted."
            )
    known = {"compared_on": samples.source, "parity": parity}
    if samples.labels is None or "litert" not in card["formats"]:
        return known
    scored = {"keras": expected} | {
        form: {"probabilities": answers[f"{form}:probabilities"]} for form in reload.forms(card) if "litert" in form
    }
    return known | {"accuracy": {form: _accuracy(p, samples.labels) for form, p in scored.items()}}


def compared(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """How far probabilities are from the Keras model's, over the images that `found` has.

    Args:
        found: {output: `(images, classes)`}.
        expected: the same, of as many images or more.

    Returns:
        {"images": count, "probabilities": largest difference, "logits": largest difference of their logarithms over the
        largest of these (or 1), "same_class": share of the images whose best class is the same, or within 1e-5 of it};
        the worst of the outputs.
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


def _checked_targets(to):
    targets = tuple(part.strip() for part in to.split(",")) if isinstance(to, str) else tuple(to)
    for target in targets:
        check_choice("target", target, TARGETS)
    if not targets:
        raise ValueError(f"Expected at least one target of {', '.join(TARGETS)}; Received: none.")
    return targets


def _check_options(options, version) -> None:
    for target, option in (("savedmodel", "float_only"), ("savedmodel", "batching"), ("onnx", "nchw")):
        if getattr(options, option) and target not in options.targets:
            raise ValueError(f"Expected {target!r} among the targets with {option}; Received: {options.targets}.")
    if options.precisions is not None and "litert" not in options.targets:
        raise ValueError(f"Expected 'litert' among the targets with precisions; Received: {options.targets}.")
    for name, number in (("top", options.top), ("batching", options.batching), ("version", version)):
        if number is not None and (not isinstance(number, int) or number < 1):
            raise ValueError(f"Expected {name} to be 1 or more; Received: {name}={number!r}.")


def _check_place(folder, version) -> None:
    check_folder(folder)
    if version is not None and (folder / str(version)).exists():
        raise ValueError(f"Expected a new version; Received: {version}, which exists in {str(folder)!r}.")


def _read(source, class_names, keep_aux) -> tuple[RunFolder | None, Inference]:
    """The run, where it is one, and the network."""
    if os.path.isfile(source):
        run, model = None, transfer.read(source)
        labels = model.spec.class_names or [str(number) for number in range(model.spec.classes)]
    else:
        run = RunFolder(source)
        model, labels = run.model(), run.classes()
    return run, Inference(model, list(class_names or labels), keep_aux)


def _with_precisions(options, run, network) -> tuple[Options, dict[str, str]]:
    """The options with the precisions to write, and why others cannot be."""
    if "litert" not in options.targets:
        return options._replace(precisions=()), {}
    why = litert.int8_refusal(network.model.spec)
    if why is None and run is None:
        why = "its ranges are measured on a run's training split, and this is a file"
    if options.precisions is None:
        possible = tuple(precision for precision in litert.PRECISIONS if precision != "int8" or why is None)
        return options._replace(precisions=possible), {"litert/int8": why} if why else {}
    for precision in options.precisions:
        check_choice("precision", precision, litert.PRECISIONS)
    if not options.precisions:
        raise ValueError(f"Expected at least one precision of {', '.join(litert.PRECISIONS)}; Received: none.")
    if "int8" in options.precisions and why:
        raise ValueError(f"Expected a network that can be int8; Received: {why}.")
    return options, {}


def _test_samples(run, network, count) -> Samples:
    """The first readable pictures of a run's test split; of a file two photographs and parts of them."""
    if run is None:
        return _photographs(network)
    builder, splits = sources.load(run.recipe())
    if sources.class_names(builder) != run.classes():
        raise ValueError(f"Expected the classes that {str(run.path)!r} was trained on; Received: others.")
    rows = list(_pictures(builder, splits.test, network, count).as_numpy_iterator())
    if not rows:
        raise ValueError(f"Expected readable pictures in {splits.test!r}; Received: none.")
    encoded, pixels, labels = zip(*rows, strict=True)
    return Samples(list(encoded), np.stack(pixels), np.array(labels), f"{splits.test} of {run.recipe().source}")


def _pictures(builder, split, network, count) -> tf.data.Dataset:
    """(encoded, uint8 pixels, label) of the first readable pictures of a split."""
    ds = pipeline.encoded_pictures(builder, split)
    ds = ds.map(lambda e, label: (e, decode(e, network.size, network.channels), label), pipeline.CORES)
    return ds.ignore_errors().take(count)


def _photographs(network) -> Samples:
    from sklearn.datasets import load_sample_images

    pictures = [
        photograph[top : top + 240, left : left + 320]
        for photograph in load_sample_images().images
        for top in (0, 90, 180)
        for left in (0, 150, 300)
    ]
    encoded = [tf.io.encode_jpeg(picture).numpy() for picture in pictures]
    pixels = np.stack([decode(e, network.size, network.channels).numpy() for e in encoded])
    return Samples(encoded, pixels, None, "parts of scikit-learn's sample photographs")


def _representative(run, network) -> np.ndarray:
    """uint8 pixels of the training split."""
    builder, splits = sources.load(run.recipe())
    return np.stack([row[1] for row in _pictures(builder, splits.train, network, REPRESENTATIVE).as_numpy_iterator()])


def _write(part, name, run, network, options) -> dict[str, dict]:
    """Writes every form that was asked for; what the card says of each."""
    formats = {}
    write_text(part / saved_model.LABELS, "".join(f"{label}\n" for label in network.labels))
    if "savedmodel" in options.targets:
        formats["savedmodel"] = _write_saved_model(part, name, network, options)
    if "onnx" in options.targets:
        formats["onnx"] = _write_onnx(part, network, options.nchw, options.preprocessing)
    if "litert" in options.targets:
        images = _representative(run, network) if "int8" in options.precisions else np.empty(0)
        formats["litert"] = _write_litert(part, network, options.precisions, options.preprocessing, images)
    return formats


def _write_saved_model(part, name, network, options) -> dict[str, Any]:
    signatures = saved_model.write(part, network, min(options.top, len(network.labels)), options.float_only)
    saved_model.write_warm_up(part, network, name, options.float_only)
    if options.batching:
        write_text(part / saved_model.BATCHING, saved_model.batching_parameters(options.batching))
    return {"file": "saved_model.pb", "signatures": signatures}


def _write_onnx(part, network, nchw, preprocessing) -> dict[str, Any]:
    model = onnx_file.convert(network, nchw, preprocessing)
    onnx.save(model, part / "model.onnx")
    layout = {"layout": "NCHW" if nchw else "NHWC", "pixels": _taken(preprocessing), "opset": onnx_file.OPSET}
    return {"file": "model.onnx"} | layout | onnx_file.described(model)


def _write_litert(part, network, precisions, preprocessing, representative) -> dict[str, Any]:
    entries = {}
    for precision in precisions:
        images = representative.astype("float32")
        if not preprocessing and len(images):
            images = (images - network.mean) / network.std
        content = litert.convert(network, precision, preprocessing, images)
        file = f"model_{precision}.tflite"
        (part / file).write_bytes(content)
        entries[precision] = {"file": file, "layout": "NHWC", "pixels": _taken(preprocessing)}
    return entries


def _taken(preprocessing):
    return "0-255" if preprocessing else "normalised"


def _in_fresh_process(folder, samples, form=None) -> dict[str, np.ndarray]:
    """What `reload` finds, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        given, found = Path(scratch, "samples.npz"), Path(scratch, "answers.npz")
        few = samples.encoded[:COMPARED]
        np.savez(
            given,
            pixels=samples.pixels,
            encoded=np.frombuffer(b"".join(few), "uint8"),
            ends=np.cumsum([len(picture) for picture in few]),
            few=len(few),
        )
        # -P: beside reload.py lie modules that would hide others of the same name.
        command = [sys.executable, "-P", reload.__file__, str(folder), str(given), str(found)]
        done = subprocess.run(command + ([form] if form else []), capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise ValueError(f"Expected the export to run in a fresh process; Received: {last}; it is deleted.")
        with np.load(found) as answers:
            return dict(answers)


def _first_difference(folder, form, network, samples, bound) -> str:
    """Where a form's layers part from the Keras model's, in words."""
    values = _in_fresh_process(folder, samples, form)
    for layer, expected in network.layers(samples.pixels[:2]).items():
        found = [value for name, value in values.items() if _is_of(layer, name) and value.shape == expected.shape]
        size = max(float(np.abs(expected).max()), 1e-6)
        if found and not float(np.abs(found[-1] - expected).max()) <= bound.layer * size:
            return f"at layer {layer.removesuffix('_relu')}"
    return "outside of the network's layers"


def _is_of(layer, tensor):
    """Whether a tensor's name stands for a layer's output; converters join names and number them."""
    return any(re.fullmatch(rf"{re.escape(layer)}(_\d+)?", piece) for piece in re.split("[/;:]", tensor))


def _accuracy(found, labels) -> dict[str, float]:
    top1, top5, loss = evaluate.image_scores(found["probabilities"], labels).mean(axis=1).tolist()
    return {"images": len(labels), "top1": top1, "top5": top5, "loss": loss}


def _files(folder) -> dict[str, dict]:
    """{path: bytes and checksum} of everything but the card itself."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in cards.NAMES:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return files


def _write_card(folder, card) -> None:
    for name, text in zip(cards.NAMES, cards.texts(card), strict=True):
        write_text(folder / name, text)


def _next_version(folder) -> int:
    return 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)


@contextlib.contextmanager
def _alone(folder) -> Iterator[None]:
    """Makes the folder and keeps other exports out of it; a folder that was made in vain goes again."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / LOCK, timeout=0):
            yield
    except filelock.Timeout:
        raise ValueError(f"Expected a folder that no other export is using; Received: {str(folder)!r}.") from None
    finally:
        if made and folder.exists() and all(path.name == LOCK for path in folder.iterdir()):
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """TensorFlow has errors of its own for a disk that is full."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(None, error.message.splitlines()[0]) from error

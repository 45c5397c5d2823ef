"""Exports: a trained network as files for servers and devices, each compared with it before it is done."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import onnx
import tensorflow as tf

from inception_v1.atomic_files import atomic_folder, check_folder, write_text
from inception_v1.spec import check_choice
from training.errors import UserError
from training.export import litert, model_card, onnx_file, onnx_precisions, savedmodel
from training.export.export_model import ExportModel
from training.export.precisions import Precisions, choose_precisions
from training.export.samples import COMPARED, SCORED, Samples, comparison_samples, representative_pixels
from training.export.verification import verify
from training.export.web import runtime, site
from training.run_folder import RunFolder
from training.trained_network import read_trained

TARGETS = ("savedmodel", "onnx", "litert", "web")
LOCK = ".lock"


class Options(NamedTuple):
    """Arguments of `export`."""

    targets: tuple[str, ...]
    top: int
    float_only: bool
    batching: int | None
    nchw: bool
    preprocessing: bool
    precisions: Sequence[str] | None
    unverified: bool


def export(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: str | Sequence[str] = "savedmodel",
    keep_aux: bool = False,
    float_only: bool = False,
    top: int = 5,
    batching: int | None = None,
    nchw: bool = False,
    preprocessing: bool = False,
    precisions: Sequence[str] | None = None,
    unverified: bool = False,
    class_names: Sequence[str] | None = None,
    version: int | None = None,
) -> dict[str, Any]:
    """Writes a trained network as `OUT/VERSION/`, reloads it in a fresh process and compares it with the Keras model.

    Batch normalization is folded into the convolutions, and weights are stored once a file. Beside the files are
    `labels.txt`, `model_card.json` and `README.md`, and in `OUT` a `models.config` for TF Serving.

    Args:
        source: folder of a run, whose best model is taken, or a `.keras` file.
        out: folder of the exports of this name; made if absent.
        to: "savedmodel", "onnx", "litert" and "web" (a folder of static files: a page that runs the network in a
            browser), as a sequence or separated by commas.
        keep_aux: whether the auxiliary heads are outputs too ("aux1", "aux2").
        float_only: whether the SavedModel takes float32 pixels alone, for runtimes that cannot decode images.
        top: classes an image that the SavedModel names, best first; fewer where the network has fewer.
        batching: largest batch that TF Serving may form from several requests; None writes no batching parameters.
        nchw: whether the ONNX file takes `(N, channels, size, size)`.
        preprocessing: whether the ONNX and LiteRT files take pixels on the 0-255 scale, not normalized ones.
        precisions: of LiteRT, of `litert.PRECISIONS`, and of ONNX (`onnx_precisions.PRECISIONS`) beside float32, which
            `model.onnx` always has; None for all of LiteRT that the network allows, and float32 ONNX.
        unverified: whether the page is written without being run in Node.js, which otherwise must be installed.
        class_names: in label order; None for those of the run or file.
        version: a positive integer; None for the next free one.

    Returns:
        What `model_card.json` holds.

    Raises:
        UserError: no trained network, a bad argument, or an existing version: nothing is written then.
        VerificationError: a form that does not agree with the Keras model. The export is deleted, and the message names
            the first layer that differs.
        OSError: the disk is full or the folder cannot be written; nothing of the version is left.
    """
    options = Options(_checked_targets(to), top, float_only, batching, nchw, preprocessing, precisions, unverified)
    _check_options(options, version)
    folder, name = Path(out), Path(os.path.abspath(out)).name  # also of "." and ".."
    _check_place(folder, version)
    run, network = _read(source, class_names, keep_aux)
    chosen = choose_precisions(options.targets, options.precisions, network.model.spec, of_run=run is not None)
    samples = comparison_samples(run, network, SCORED if chosen.scored else COMPARED)
    with _alone(folder):
        version = version or _next_version(folder)
        with atomic_folder(folder / str(version)) as part:
            card = model_card.begin_card(str(source), name, version, run, network) | {"refused": chosen.refused}
            with _as_os_error():
                card["formats"] = _write(part, name, run, network, options, chosen, samples)
            _write_card(part, card)
            card |= verify(part, card, network, samples)
            if "web" in options.targets:
                site.add_facts(part / site.FOLDER, card)
            card["files"] = _files(part)
            _write_card(part, card)
        if "savedmodel" in options.targets:
            write_text(folder / "models.config", savedmodel.models_config(name))
    return card


def _checked_targets(to: str | Sequence[str]) -> tuple[str, ...]:
    targets = tuple(part.strip() for part in to.split(",")) if isinstance(to, str) else tuple(to)
    for target in targets:
        check_choice("target", target, TARGETS)
    if not targets:
        raise UserError(f"Expected at least one target of {', '.join(TARGETS)}; Received: none.")
    return targets


def _check_options(options: Options, version: int | None) -> None:
    for target, option in (
        ("savedmodel", "float_only"),
        ("savedmodel", "batching"),
        ("onnx", "nchw"),
        ("web", "unverified"),
    ):
        if getattr(options, option) and target not in options.targets:
            raise UserError(f"Expected {target!r} among the targets with {option}; Received: {options.targets}.")
    if "web" in options.targets:
        runtime.check_ready(options.unverified)
    if options.precisions is not None and not {"litert", "onnx"}.intersection(options.targets):
        raise UserError(f"Expected 'litert' or 'onnx' among the targets with precisions; Received: {options.targets}.")
    for name, number in (("top", options.top), ("batching", options.batching), ("version", version)):
        if number is not None and (not isinstance(number, int) or number < 1):
            raise UserError(f"Expected {name} to be 1 or more; Received: {name}={number!r}.")


def _check_place(folder: Path, version: int | None) -> None:
    check_folder(folder)
    if version is not None and (folder / str(version)).exists():
        raise UserError(f"Expected a new version; Received: {version}, which exists in {str(folder)!r}.")


def _read(
    source: str | os.PathLike[str], class_names: Sequence[str] | None, keep_aux: bool
) -> tuple[RunFolder | None, ExportModel]:
    """The run, where it is one, and the network."""
    model, labels, run, _ = read_trained(source)
    return run, ExportModel(model, labels if class_names is None else class_names, keep_aux)


def _write(
    part: Path,
    name: str,
    run: RunFolder | None,
    network: ExportModel,
    options: Options,
    precisions: Precisions,
    samples: Samples,
) -> dict[str, dict[str, Any]]:
    """Writes every form that was asked for, and returns their entries of the model card."""
    formats = {}
    images = _calibration_images(run, network, options.preprocessing) if precisions.calibrated else np.empty(0)
    write_text(part / savedmodel.LABELS, "".join(f"{label}\n" for label in network.labels))
    if "savedmodel" in options.targets:
        formats["savedmodel"] = _write_saved_model(part, name, network, options)
    if "onnx" in options.targets:
        formats["onnx"] = _write_onnx(part, network, options, precisions.onnx, images)
    if "litert" in options.targets:
        formats["litert"] = _write_litert(part, network, precisions.litert, options.preprocessing, images)
    if "web" in options.targets:
        formats["web"] = site.write(part / site.FOLDER, network, samples, options.unverified)
    return formats


def _calibration_images(run: RunFolder | None, network: ExportModel, preprocessing: bool) -> np.ndarray:
    """Float32 images of the training split, as the ONNX and LiteRT files take them."""
    assert run is not None  # `choose_precisions` refuses int8 of a file
    images = representative_pixels(run, network).astype("float32")
    return images if preprocessing else (images - network.mean) / network.std


def _write_saved_model(part: Path, name: str, network: ExportModel, options: Options) -> dict[str, Any]:
    signatures = savedmodel.write(part, network, min(options.top, len(network.labels)), options.float_only)
    savedmodel.write_warm_up(part, network, name, options.float_only)
    if options.batching:
        write_text(part / savedmodel.BATCHING, savedmodel.batching_parameters(options.batching))
    return {"file": "saved_model.pb", "signatures": signatures}


def _write_onnx(
    part: Path, network: ExportModel, options: Options, precisions: Sequence[str], images: np.ndarray
) -> dict[str, Any]:
    """Writes `model.onnx`, and files of other precisions beside it."""
    model = onnx_file.convert(network, options.nchw, options.preprocessing)
    layout = {"layout": "NCHW" if options.nchw else "NHWC", "pixels": _input_pixels(options.preprocessing)}
    known = layout | {"opset": onnx_file.OPSET} | onnx_file.describe(model)
    onnx.save(model, part / "model.onnx")
    others = {}
    for precision in precisions:
        if precision == "float16":
            converted = onnx_precisions.to_float16(model)
        else:
            converted = onnx_precisions.to_int8(model, images.transpose(0, 3, 1, 2) if options.nchw else images)
        others[precision] = {"file": f"model_{precision}.onnx"} | layout
        onnx.save(converted, part / others[precision]["file"])
    return {"file": "model.onnx"} | known | ({"precisions": others} if others else {})


def _write_litert(
    part: Path, network: ExportModel, precisions: Sequence[str], preprocessing: bool, images: np.ndarray
) -> dict[str, Any]:
    entries = {}
    for precision in precisions:
        content = litert.convert(network, precision, preprocessing, images)
        file = f"model_{precision}.tflite"
        (part / file).write_bytes(content)
        entries[precision] = {"file": file, "layout": "NHWC", "pixels": _input_pixels(preprocessing)}
    return entries


def _input_pixels(preprocessing: bool) -> str:
    return "0-255" if preprocessing else "normalized"


def _files(folder: Path) -> dict[str, dict[str, int | str]]:
    """{path: bytes and checksum} of everything but the model card itself."""
    files: dict[str, dict[str, int | str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in model_card.NAMES:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return files


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    for name, text in zip(model_card.NAMES, model_card.card_texts(card), strict=True):
        write_text(folder / name, text)


def _next_version(folder: Path) -> int:
    return 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Makes the folder and keeps other exports out of it; a folder that was made in vain is removed."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(str(folder / LOCK), timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(f"Expected a folder that no other export is using; Received: {str(folder)!r}.") from None
    finally:
        if made and folder.exists() and all(path.name == LOCK for path in folder.iterdir()):
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Turns the errors that TensorFlow has of its own for a full disk into `OSError`."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(None, error.message.splitlines()[0]) from error

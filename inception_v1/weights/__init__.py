"""Weights of every published family in and out of a `GoogLeNet`."""

import dataclasses
import logging
import os
from collections.abc import Collection

import keras
import numpy as np

from inception_v1.spec import LRN, VARIANTS, Spec, check_choice
from inception_v1.weights import formats as files
from inception_v1.weights import name_mapping as maps
from inception_v1.weights import pretrained as published
from inception_v1.weights.export import export_weights
from inception_v1.weights.formats import Weights

__all__ = ["Weights", "export_weights", "import_weights", "load", "load_weights", "read"]

AUX = maps.HEADS[1:]

log = logging.getLogger(__name__)

# Variants whose files each kind of source writes, and where their entries are.
MAPS = {
    "caffe": maps.caffe,
    "torchvision": maps.torchvision,
    "slim": maps.slim,
    "onnx": maps.caffe,
    "inception5h": maps.inception5h,
    "keras": maps.keras_variables,
}
# What training leaves beside the weights.
IGNORED = ("num_batches_tracked", "global_step", "/Momentum", "/RMSProp", "/RMSProp_1", "/ExponentialMovingAverage")


def load_weights(
    model: keras.Model, path: str | os.PathLike, source: str | None = None, skip: Collection[str] = ()
) -> None:
    """Loads a published or saved file into `model`: all of it, or nothing.

    The kind of file is recognised from its content: Caffe (`.caffemodel`), torchvision (`.pth`, both layouts of
    `torch.save`; safetensors), TF-slim (a checkpoint of either version, or the published `.tar.gz`), ONNX (`.onnx`),
    inception5h (the frozen graph `.pb`, or the published `.zip`), and our own `.keras` and `.weights.h5`. No framework
    of theirs is needed, and nothing that a file says is run.

    A model of 1000 classes takes a TF-slim file without its background class. Auxiliary heads that the file does not
    have stay as they are, and a warning says so.

    Args:
        model: a `GoogLeNet` of the file's family.
        path: the file, or a published one by name (see `build_googlenet`).
        source: "caffe", "torchvision", "slim", "onnx", "inception5h" or "keras", if it must be that; None for any.
        skip: heads whose classifier stays as it is ("main", "aux1", "aux2"), or layers by name.

    Raises:
        ValueError: no such file, not a file of weights or a hostile one, of another family, or entries that are
            missing, unused or of another shape (all are listed). The model is then unchanged.

    Source: `weights/maps.py` says where each family's names come from.
    """
    load(model, read(path, source), skip)


def read(path: str | os.PathLike, source: str | None = None) -> Weights:
    """What a file holds, or published weights by name. Raises ValueError as `load_weights` does."""
    if isinstance(path, str) and path in published.NAMES:
        path = published.converted(path, import_weights)
    return files.read(path, source)


def import_weights(
    path: str | os.PathLike, pixels: str | None = None, class_names: Collection[str] | None = None
) -> "keras.Model":
    """The network that a published file belongs to, with its weights, pixel convention and class names.

    Args:
        path: as for `load_weights`, but for `.weights.h5`.
        pixels: pixel convention, a key of `spec.PIXELS`; None: the one that the family's published weights were trained
            on. A torchvision file does not say whether its network had `transform_input`: give "torch" if it had not.
        class_names: in label order; None: the family's published ones where the number of classes is theirs.

    Returns:
        A `GoogLeNet`; save it as `.keras` and it needs the original no more.

    Raises:
        ValueError: as `load_weights`.
    """
    from inception_v1.model import GoogLeNet
    from inception_v1.preprocessing import class_list

    weights = read(path)
    spec = weights.spec
    if weights.variant is None:
        raise ValueError(f"Expected weights that say which network they belong to; Received: {str(path)!r}.")
    if spec is None:
        full = Spec(weights.variant)
        entries = MAPS[weights.source](full)
        bias = weights.arrays.get(entries["main_logits/bias"].name)
        if bias is None:
            raise ValueError(
                f"Expected weights with the main classifier {entries['main_logits/bias'].name!r}; "
                f"Received: {str(path)!r}, which has {len(weights.arrays)} other arrays."
            )
        aux = any(entry.name in weights.arrays for own, entry in entries.items() if maps.head_of(own) in AUX)
        spec = dataclasses.replace(full, classes=bias.size, aux=aux, lrn=weights.lrn)
    names = class_names
    if names is None and spec.class_names is None and spec.classes == spec.row.classes:
        names = [name for _, name in class_list(spec.row.class_list, spec.classes)]
    spec = dataclasses.replace(
        spec, pixels=pixels or spec.pixels, class_names=tuple(names) if names is not None else spec.class_names
    )
    model = GoogLeNet(**spec.to_dict())
    load(model, weights)
    return model


def load(model: keras.Model, weights: Weights, skip: Collection[str] = ()) -> None:
    """Loads what `read` returned. See `load_weights`."""
    spec: Spec = model.spec
    if weights.variant is None:
        with files.refused(f"Expected weights of a network like {model.name!r}", weights.path):
            arrays = files.read_hdf5(spec, weights.path.read_bytes())
        weights = weights._replace(variant=spec.variant, arrays=arrays)
    _check_family(spec, weights)
    entries = MAPS[weights.source](maps.complete(spec))
    arrays = {name: array for name, array in weights.arrays.items() if not name.endswith(IGNORED)}
    if weights.source == "slim" and spec.classes == VARIANTS["slim"].classes - 1:
        for own in ("main_logits/kernel", "main_logits/bias"):
            name = entries[own].name
            if name in arrays and arrays[name].shape[-1] == VARIANTS["slim"].classes:
                arrays[name] = arrays[name][..., 1:]  # the background comes first

    variables = {variable.path: variable for variable in model.weights}
    skipped = _skipped(variables, skip)
    absent = [
        head
        for head in AUX
        if head in spec.heads and not any(entries[own].name in arrays for own in entries if maps.head_of(own) == head)
    ]
    wanted = {v: variables[v] for v in variables if v not in skipped and maps.head_of(v) not in absent}
    if wrong := _mismatches(wanted, entries, arrays):
        raise ValueError(
            f"Expected weights that fit {model.name!r}; Received: {str(weights.path)!r} ({weights.source}) with {wrong}"
        )
    for head in absent:
        log.warning("%s has no head %r: it stays as it is", weights.path, head)
    for own, variable in wanted.items():
        variable.assign(maps.turned(entries[own], arrays[entries[own].name], tuple(variable.shape)))


def _mismatches(
    wanted: dict[str, keras.Variable], entries: dict[str, maps.Entry], arrays: dict[str, np.ndarray]
) -> str:
    """All that is missing, unused or of another shape in one sentence; empty if nothing is."""
    names = {own: entries[own].name if own in entries else own for own in wanted}
    present = {
        own: (entries[own], tuple(wanted[own].shape))
        for own, name in names.items()
        if own in entries and name in arrays
    }
    misfits = [own for own, (entry, shape) in present.items() if not maps.fits(entry, arrays[entry.name], shape)]
    lists = {
        "missing": [name for own, name in names.items() if own not in present],
        "unused": sorted(arrays.keys() - {entry.name for entry in entries.values()}),
        "misshapen": [
            f"{names[own]} of shape {arrays[names[own]].shape} for {maps.their_shape(*present[own])}" for own in misfits
        ],
    }
    told = "; ".join(f"{len(listed)} {what}: {', '.join(listed)}" for what, listed in lists.items() if listed)
    heads = tuple(head for head in maps.HEADS if f"{head}_logits/kernel" in misfits)
    return f"{told}. For other classes than the file's pass skip={heads}." if heads else told


def _check_family(spec: Spec, weights: Weights) -> None:
    """The shapes of two families often agree where their arithmetic does not."""
    if spec.variant != weights.variant:
        raise ValueError(
            f"Expected a model of variant {weights.variant!r} for the weights in {str(weights.path)!r}; "
            f"Received: variant={spec.variant!r}."
        )
    own = spec.norm
    if isinstance(own, LRN) and weights.lrn is not None and not np.allclose(own, weights.lrn, rtol=1e-5, atol=0):
        raise ValueError(
            f"Expected a model with lrn={tuple(weights.lrn)} for the weights in {str(weights.path)!r}; "
            f"Received: lrn={tuple(own)}."
        )


def _skipped(variables: Collection[str], skip: Collection[str]) -> set[str]:
    """Paths of the variables that stay as they are."""
    if isinstance(skip, str):
        raise ValueError(f"Expected skip to be a collection of names; Received: skip={skip!r}.")
    by_layer: dict[str, list[str]] = {}
    for path in variables:
        by_layer.setdefault(path.rpartition("/")[0], []).append(path)
    skipped = set()
    for name in skip:
        layer = f"{name}_logits" if name in maps.HEADS else name
        check_choice("skip", layer, by_layer)
        skipped |= set(by_layer[layer])
    return skipped

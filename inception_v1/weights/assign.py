"""Strict assignment: every array of a file to a variable of a network, or an error that lists all that does not fit."""

import logging
from collections.abc import Collection

import keras
import numpy as np

from inception_v1.errors import UserError
from inception_v1.spec import LRN, VARIANTS, Spec, check_choice
from inception_v1.weights import formats, name_mapping
from inception_v1.weights.formats import Weights

AUX = name_mapping.HEADS[1:]

log = logging.getLogger(__name__)

# What training leaves beside the weights.
IGNORED = ("num_batches_tracked", "global_step", "/Momentum", "/RMSProp", "/RMSProp_1", "/ExponentialMovingAverage")


def assign_weights(model: keras.Model, weights: Weights, skip: Collection[str] = ()) -> None:
    """Assigns what `formats.read` returned to the variables of `model`: all of it, or nothing. See `load_weights`.

    Args:
        model: a `GoogLeNet`.
        weights: of its family.
        skip: heads or layers that stay as they are.

    Raises:
        UserError: as `load_weights`.
    """
    spec: Spec = model.spec
    if weights.variant is None:
        with formats.refused(f"Expected weights of a network like {model.name!r}", weights.path):
            arrays = formats.read_hdf5(spec, weights.path.read_bytes())
        weights = weights._replace(variant=spec.variant, arrays=arrays)
    _check_family(spec, weights)
    entries = name_mapping.MAPPINGS[weights.source](name_mapping.with_all_heads(spec))
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
        if head in spec.heads
        and not any(entries[own].name in arrays for own in entries if name_mapping.head_of(own) == head)
    ]
    wanted = {v: variables[v] for v in variables if v not in skipped and name_mapping.head_of(v) not in absent}
    if wrong := _mismatches(wanted, entries, arrays):
        raise UserError(
            f"Expected weights that fit {model.name!r}; Received: {str(weights.path)!r} ({weights.source}) with {wrong}"
        )
    for head in absent:
        log.warning("%s has no head %r: it stays as it is", weights.path, head)
    for own, variable in wanted.items():
        variable.assign(name_mapping.converted(entries[own], arrays[entries[own].name], tuple(variable.shape)))


def _mismatches(
    wanted: dict[str, keras.Variable], entries: dict[str, name_mapping.Entry], arrays: dict[str, np.ndarray]
) -> str:
    """All that is missing, unused or of another shape in one sentence; empty if nothing is."""
    names = {own: entries[own].name if own in entries else own for own in wanted}
    present = {
        own: (entries[own], tuple(wanted[own].shape))
        for own, name in names.items()
        if own in entries and name in arrays
    }
    misfits = [
        own for own, (entry, shape) in present.items() if not name_mapping.fits(entry, arrays[entry.name], shape)
    ]
    lists = {
        "missing": [name for own, name in names.items() if own not in present],
        "unused": sorted(arrays.keys() - {entry.name for entry in entries.values()}),
        "of another shape": [
            f"{names[own]} of shape {arrays[names[own]].shape} for {name_mapping.their_shape(*present[own])}"
            for own in misfits
        ],
    }
    message = "; ".join(f"{len(listed)} {what}: {', '.join(listed)}" for what, listed in lists.items() if listed)
    heads = tuple(head for head in name_mapping.HEADS if f"{head}_logits/kernel" in misfits)
    return f"{message}. For other classes than the file's pass skip={heads}." if heads else message


def _check_family(spec: Spec, weights: Weights) -> None:
    """The shapes of two families often agree where their arithmetic does not."""
    if spec.variant != weights.variant:
        raise UserError(
            f"Expected a model of variant {weights.variant!r} for the weights in {str(weights.path)!r}; "
            f"Received: variant={spec.variant!r}."
        )
    own = spec.norm
    if isinstance(own, LRN) and weights.lrn is not None and not np.allclose(own, weights.lrn, rtol=1e-5, atol=0):
        raise UserError(
            f"Expected a model with lrn={tuple(weights.lrn)} for the weights in {str(weights.path)!r}; "
            f"Received: lrn={tuple(own)}."
        )


def _skipped(variables: Collection[str], skip: Collection[str]) -> set[str]:
    """Paths of the variables that stay as they are."""
    if isinstance(skip, str):
        raise UserError(f"Expected skip to be a collection of names; Received: skip={skip!r}.")
    by_layer: dict[str, list[str]] = {}
    for path in variables:
        by_layer.setdefault(path.rpartition("/")[0], []).append(path)
    skipped = set()
    for name in skip:
        layer = f"{name}_logits" if name in name_mapping.HEADS else name
        check_choice("skip", layer, by_layer)
        skipped |= set(by_layer[layer])
    return skipped

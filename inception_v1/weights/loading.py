"""Weights of every published family: into a `GoogLeNet`, or as the network that they belong to."""

import dataclasses
import os
from collections.abc import Collection

import keras

from inception_v1.errors import UserError
from inception_v1.model import GoogLeNet
from inception_v1.preprocessing import class_list
from inception_v1.spec import Spec
from inception_v1.weights import formats, name_mapping, pretrained
from inception_v1.weights.assign import AUX, assign_weights
from inception_v1.weights.formats import Weights


def load_weights(
    model: keras.Model, path: str | os.PathLike[str], source: str | None = None, skip: Collection[str] = ()
) -> None:
    """Loads a published or saved file into `model`: all of it, or nothing.

    The kind of file is recognized from its content: Caffe (`.caffemodel`), torchvision (`.pth`, both layouts of
    `torch.save`; safetensors), TF-slim (a checkpoint of either version, or the published `.tar.gz`), ONNX (`.onnx`),
    inception5h (the frozen graph `.pb`, or the published `.zip`), and our own `.keras` and `.weights.h5`. No framework
    of theirs is needed, and nothing in a file is executed.

    A model of 1000 classes takes a TF-slim file without its background class. Auxiliary heads that the file does not
    have stay unchanged, and a warning is logged.

    Args:
        model: a `GoogLeNet` of the file's family.
        path: the file, or a published one by name (see `build_googlenet`).
        source: "caffe", "torchvision", "slim", "onnx", "inception5h" or "keras", if it must be that; None for any.
        skip: heads whose classifier stays as it is ("main", "aux1", "aux2"), or layers by name.

    Raises:
        UserError: no such file, not a file of weights or a hostile one, of another family, or entries that are
            missing, unused or of another shape (all are listed). The model is then unchanged.

    Source: `weights/name_mapping.py` names the source of each family's names.
    """
    assign_weights(model, read_weights(path, source), skip)


def read_weights(path: str | os.PathLike[str], source: str | None = None) -> Weights:
    """What a file holds, or published weights by name. Raises UserError as `load_weights` does."""
    if isinstance(path, str) and path in pretrained.NAMES:
        path = pretrained.converted_file(path, import_weights)
    return formats.read(path, source)


def import_weights(
    path: str | os.PathLike[str], pixels: str | None = None, class_names: Collection[str] | None = None
) -> "keras.Model":
    """The network that a published file belongs to, with its weights, pixel convention and class names.

    Args:
        path: as for `load_weights`, but for `.weights.h5`.
        pixels: pixel convention, a key of `spec.PIXELS`; None: the one that the family's published weights were trained
            on. A torchvision file does not say whether its network used `transform_input`: pass "torch" if it did not.
        class_names: in label order; None: the family's published ones where the number of classes is theirs.

    Returns:
        A `GoogLeNet`; save it as `.keras` and it needs the original no more.

    Raises:
        UserError: as `load_weights`.
    """
    weights = read_weights(path)
    spec = weights.spec
    if weights.variant is None:
        raise UserError(f"Expected weights that name the network they belong to; Received: {str(path)!r}.")
    if spec is None:
        full = Spec(weights.variant)
        entries = name_mapping.MAPPINGS[weights.source](full)
        bias = weights.arrays.get(entries["main_logits/bias"].name)
        if bias is None:
            raise UserError(
                f"Expected weights with the main classifier {entries['main_logits/bias'].name!r}; "
                f"Received: {str(path)!r}, which has {len(weights.arrays)} other arrays."
            )
        aux = any(entry.name in weights.arrays for own, entry in entries.items() if name_mapping.head_of(own) in AUX)
        spec = dataclasses.replace(full, classes=bias.size, aux=aux, lrn=weights.lrn)
    names = class_names
    if names is None and spec.class_names is None and spec.classes == spec.family.classes:
        names = [name for _, name in class_list(spec.family.class_list, spec.classes)]
    spec = dataclasses.replace(
        spec, pixels=pixels or spec.pixels, class_names=tuple(names) if names is not None else spec.class_names
    )
    model = GoogLeNet(**spec.to_dict())
    assign_weights(model, weights)
    return model

"""Weights back into the files of two families, for those who stay with PyTorch or Caffe."""

import os
from pathlib import Path

import keras
import numpy as np

from inception_v1.atomic_files import atomic_file
from inception_v1.errors import UserError
from inception_v1.spec import check_choice
from inception_v1.weights import name_mapping
from inception_v1.weights.caffe_file import write_caffe

FAMILIES = {"torchvision": ("torchvision", ".safetensors"), "caffe": ("paper", ".caffemodel")}  # variant, suffix


def export_weights(model: keras.Model, path: str | os.PathLike[str], family: str) -> None:
    """Writes the weights of `model` as its family's own framework reads them. Reading them back is exact.

    Args:
        model: a `GoogLeNet` with a top.
        path: of the file. For "torchvision" a `.safetensors` file of the state dict
            (`network.load_state_dict(safetensors.torch.load_file(path))`), for "caffe" a `.caffemodel`.
        family: "torchvision" or "caffe"; the model's variant is "torchvision" or "paper" then.

    Raises:
        UserError: another family, variant or suffix, or no top.
        OSError: the file cannot be written; what was there before is still whole.
    """
    check_choice("family", family, FAMILIES)
    path, spec = Path(path), model.spec
    variant, suffix = FAMILIES[family]
    if spec.variant != variant or not spec.include_top or spec.stem != "imagenet" or not spec.reduction:
        raise UserError(
            f"Expected a model of variant {variant!r} with a top, as {family} has it; "
            f"Received: variant={spec.variant!r}, include_top={spec.include_top}, stem={spec.stem!r}, "
            f"reduction={spec.reduction}."
        )
    if path.suffix != suffix:
        raise UserError(f"Expected a file ending in {suffix} for {family}; Received: {str(path)!r}.")
    entries = (name_mapping.torchvision if family == "torchvision" else name_mapping.caffe)(spec)
    arrays = {
        entries[variable.path].name: np.ascontiguousarray(
            entries[variable.path].transform.theirs(keras.ops.convert_to_numpy(variable))
        )
        for variable in model.weights
    }
    data = _torchvision(arrays) if family == "torchvision" else _caffe(model, arrays)
    with atomic_file(path) as part:
        part.write_bytes(data)


def _torchvision(arrays: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    counters = {name.replace("running_mean", "num_batches_tracked") for name in arrays if name.endswith("running_mean")}
    return save({**arrays, **{name: np.zeros((), "int64") for name in counters}}, {"format": "pt"})


def _caffe(model: keras.Model, arrays: dict[str, np.ndarray]) -> bytes:
    layers = {
        name.removesuffix("_w_0"): (
            "InnerProduct" if array.ndim == 2 else "Convolution",
            [array, arrays[f"{name.removesuffix('_w_0')}_b_0"]],
        )
        for name, array in arrays.items()
        if name.endswith("_w_0")
    }
    return write_caffe(model.name, layers)

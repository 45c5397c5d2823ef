"""The name mappings: which array of a published file each of our variables comes from, and how it is transposed."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from inception_v1.spec import AUX_CONV, AUX_GRID, AUX_TAPS, BatchNorm, Conv, Inception, Spec

HEADS = ("main", *AUX_TAPS)


class Transform(NamedTuple):
    """Converts a published array to ours, and back."""

    ours: Callable[[np.ndarray], np.ndarray]
    theirs: Callable[[np.ndarray], np.ndarray]


class Entry(NamedTuple):
    """One line of a name mapping: the published name, and how to convert its array to ours."""

    name: str
    transform: Transform


SAME = Transform(lambda array: array, lambda array: array)
OIHW = Transform(lambda kernel: kernel.transpose(2, 3, 1, 0), lambda kernel: kernel.transpose(3, 2, 0, 1))
OIHW_BGR = Transform(lambda kernel: OIHW.ours(kernel)[:, :, ::-1], lambda kernel: OIHW.theirs(kernel[:, :, ::-1]))
LINEAR = Transform(np.transpose, np.transpose)


def dense_after_flatten(grid: tuple[int, int], channels: int) -> Transform:
    """A dense layer on feature maps that were flattened as channel, height, width; ours are height, width, channel."""

    def ours(kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(-1, channels, *grid).transpose(2, 3, 1, 0).reshape(-1, len(kernel))

    def theirs(kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(*grid, channels, -1).transpose(3, 2, 0, 1).reshape(kernel.shape[-1], -1)

    return Transform(ours, theirs)


def caffe(spec: Spec) -> dict[str, Entry]:
    """Caffe's `train_val.prototxt`; ONNX's graphs kept its names. Their conv1 reads blue first."""
    entries: dict[str, Entry] = {}
    for layer in layers(spec):
        head, _, part = layer.partition("_")
        if head in HEADS:
            loss = {"main": "loss3", "aux1": "loss1", "aux2": "loss2"}[head]
            name = f"{loss}/{'classifier' if part == 'logits' else part}"
        elif layer.startswith("inception"):
            name = f"{layer[:12]}/{layer[13:]}"  # inception_3a_5x5_reduce
        else:
            name = layer.replace("_", "/", 1)  # conv1_7x7_s2
        kernel = OIHW_BGR if layer == "conv1_7x7_s2" else _kernel(spec, layer)
        entries |= {f"{layer}/kernel": Entry(f"{name}_w_0", kernel), f"{layer}/bias": Entry(f"{name}_b_0", SAME)}
    return entries


def torchvision(spec: Spec) -> dict[str, Entry]:
    """`torchvision/models/googlenet.py`."""
    stem = {"conv1_7x7_s2": "conv1", "conv2_3x3_reduce": "conv2", "conv2_3x3": "conv3"}
    branches = {
        "1x1": "branch1",
        "3x3_reduce": "branch2.0",
        "3x3": "branch2.1",
        "5x5_reduce": "branch3.0",
        "5x5": "branch3.1",
        "pool_proj": "branch4.1",
    }
    dense = {"main_logits": "fc"} | {f"{h}_{own}": f"{h}.{n}" for h in AUX_TAPS for own, n in _TORCH_DENSE.items()}
    entries: dict[str, Entry] = {}
    for layer in layers(spec):
        if layer in dense:
            entries[f"{layer}/kernel"] = Entry(f"{dense[layer]}.weight", _kernel(spec, layer))
            entries[f"{layer}/bias"] = Entry(f"{dense[layer]}.bias", SAME)
            continue
        if layer.startswith("inception"):
            name = f"inception{layer[10:12]}.{branches[layer[13:]]}"
        else:
            name = stem.get(layer) or layer.replace("_", ".")  # aux1_conv
        entries[f"{layer}/kernel"] = Entry(f"{name}.conv.weight", OIHW)
        parts = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        entries |= {f"{layer}_bn/{own}": Entry(f"{name}.bn.{part}", SAME) for own, part in parts.items()}
    return entries


_TORCH_DENSE = {"fc": "fc1", "logits": "fc2"}


def slim(spec: Spec) -> dict[str, Entry]:
    """TF-slim's `nets/inception_v1.py`, whose blocks are one letter later than the paper's: 3a is Mixed_3b."""
    stem = {"conv1_7x7_s2": "Conv2d_1a_7x7", "conv2_3x3_reduce": "Conv2d_2b_1x1", "conv2_3x3": "Conv2d_2c_3x3"}
    branches = {
        "1x1": "Branch_0/Conv2d_0a_1x1",
        "3x3_reduce": "Branch_1/Conv2d_0a_1x1",
        "3x3": "Branch_1/Conv2d_0b_3x3",
        "5x5_reduce": "Branch_2/Conv2d_0a_1x1",
        "5x5": "Branch_2/Conv2d_0b_3x3",
        "pool_proj": "Branch_3/Conv2d_0b_1x1",
    }
    entries: dict[str, Entry] = {}
    for layer in layers(spec):
        if layer == "main_logits":  # a 1x1 convolution there
            entries["main_logits/kernel"] = Entry("InceptionV1/Logits/Conv2d_0c_1x1/weights", SAME)
            entries["main_logits/bias"] = Entry("InceptionV1/Logits/Conv2d_0c_1x1/biases", SAME)
            continue
        if layer.startswith("aux"):  # none there
            continue
        if layer == "inception_5a_5x5":  # the one irregular name
            name = "Mixed_5b/Branch_2/Conv2d_0a_3x3"
        elif layer.startswith("inception"):
            name = f"Mixed_{layer[10]}{chr(ord(layer[11]) + 1)}/{branches[layer[13:]]}"
        else:
            name = stem[layer]
        entries[f"{layer}/kernel"] = Entry(f"InceptionV1/{name}/weights", SAME)
        for part in ("beta", "moving_mean", "moving_variance"):
            entries[f"{layer}_bn/{part}"] = Entry(f"InceptionV1/{name}/BatchNorm/{part}", SAME)
    return entries


def inception5h(spec: Spec) -> dict[str, Entry]:
    """`tensorflow_inception_graph.pb`."""
    stem = {"conv1_7x7_s2": "conv2d0", "conv2_3x3_reduce": "conv2d1", "conv2_3x3": "conv2d2", "main_logits": "softmax2"}
    branches = {"3x3_reduce": "3x3_bottleneck", "5x5_reduce": "5x5_bottleneck", "pool_proj": "pool_reduce"}
    heads = {"conv": "head{}_bottleneck", "fc": "nn{}", "logits": "softmax{}"}
    entries: dict[str, Entry] = {}
    for layer in layers(spec):
        if layer.startswith("inception"):
            name = f"mixed{layer[10:12]}_{branches.get(layer[13:], layer[13:])}"
        elif layer.startswith("aux"):
            name = heads[layer[5:]].format(int(layer[3]) - 1)
        else:
            name = stem[layer]
        entries |= {f"{layer}/kernel": Entry(f"{name}_w", SAME), f"{layer}/bias": Entry(f"{name}_b", SAME)}
    return entries


def keras_variables(spec: Spec) -> dict[str, Entry]:
    """Our own files."""
    parts = ["gamma", "beta", "moving_mean", "moving_variance"]
    norm = spec.norm
    if isinstance(norm, BatchNorm) and not norm.scale:
        parts.remove("gamma")
    paths = []
    for layer in layers(spec):
        convolution = not layer.endswith(("_fc", "_logits"))
        paths += [f"{layer}/kernel"] + ([f"{layer}/bias"] if spec.family.conv_bias or not convolution else [])
        if convolution and isinstance(norm, BatchNorm):
            paths += [f"{layer}_bn/{part}" for part in parts]
    return {path: Entry(path, SAME) for path in paths}


def layers(spec: Spec) -> list[str]:
    """Names of the convolutions and dense layers of a network and its heads, in order."""
    names = []
    for layer in spec.trunk():
        inner = [one for branch in layer.branches for one in branch] if isinstance(layer, Inception) else [layer]
        names += [one.name for one in inner if isinstance(one, Conv)]
    if not spec.include_top:
        return names
    return [*names, "main_logits", *(f"{h}_{part}" for h in spec.heads[1:] for part in ("conv", "fc", "logits"))]


def head_of(path: str) -> str | None:
    """The head that a variable of ours belongs to; None for the body."""
    head = path.partition("_")[0]
    return head if head in HEADS else None


def with_all_heads(spec: Spec) -> Spec:
    """The same network with every head, so that a file's are known even where the model has none."""
    height, width, channels = spec.input_shape
    fixed = (height or 224, width or 224, channels)
    return dataclasses.replace(spec, aux=True, include_top=True, pooling=None, input_shape=fixed)


def _kernel(spec: Spec, layer: str) -> Transform:
    if layer.endswith("_logits"):
        return LINEAR
    if layer.endswith("_fc"):
        grid = spec.aux_grid(*_tap_size(spec, layer.partition("_")[0])) or (AUX_GRID, AUX_GRID)
        return dense_after_flatten(grid, spec.scaled(AUX_CONV))
    return OIHW


def _tap_size(spec: Spec, head: str) -> tuple[int | None, int | None]:
    """Height and width of the feature maps that an auxiliary head reads."""
    height, width, _ = spec.input_shape
    for layer in spec.trunk():
        height, width = spec.out_size(layer, height), spec.out_size(layer, width)
        if layer.name == f"inception_{AUX_TAPS[head]}":
            break
    return height, width


def without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without ones in front: old files write a vector as (1, 1, 1, n)."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def their_shape(entry: Entry, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a variable of ours has in a file."""
    return entry.transform.theirs(np.broadcast_to(np.float32(0), shape)).shape


def fits(entry: Entry, array: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a file's array becomes a variable of `shape`."""
    return math.prod(array.shape) == math.prod(shape) and without_leading_ones(array.shape) == without_leading_ones(
        their_shape(entry, shape)
    )


def converted(entry: Entry, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A file's array as ours, float32."""
    return np.ascontiguousarray(entry.transform.ours(array.reshape(their_shape(entry, shape))), "float32")


# By kind of file.
MAPPINGS: dict[str, Callable[[Spec], dict[str, Entry]]] = {
    "caffe": caffe,
    "torchvision": torchvision,
    "slim": slim,
    "onnx": caffe,
    "inception5h": inception5h,
    "keras": keras_variables,
}

"""GoogLeNet as data: block widths, the published families, and what one network looks like layer by layer.

Everything that differs between two GoogLeNets is a number or a flag here. `model.py` turns the layers
here into Keras layers and `cost.py` into counts; neither knows a family by name.
"""

import dataclasses
import difflib
import inspect
import json
import math
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

from inception_v1.errors import UserError


class Widths(NamedTuple):
    """Output channels of the six convolutions of one Inception block."""

    conv1: int  # 1x1 branch
    reduce3: int  # 1x1 reduction before the 3x3
    conv3: int  # 3x3 branch
    reduce5: int  # 1x1 reduction before the 5x5
    conv5: int  # 5x5 branch
    pool: int  # 1x1 projection after the 3x3 max pool


# arXiv 1409.4842, Table 1                                         output at 224
BLOCKS = {
    "3a": Widths(64, 96, 128, 16, 32, 32),  #                      28x28x256
    "3b": Widths(128, 128, 192, 32, 96, 64),  #                    28x28x480
    "4a": Widths(192, 96, 208, 16, 48, 64),  #                     14x14x512
    "4b": Widths(160, 112, 224, 24, 64, 64),  #                    14x14x512
    "4c": Widths(128, 128, 256, 24, 64, 64),  #                    14x14x512
    "4d": Widths(112, 144, 288, 32, 64, 64),  #                    14x14x528
    "4e": Widths(256, 160, 320, 32, 128, 128),  #                  14x14x832
    "5a": Widths(256, 160, 320, 32, 128, 128),  #                  7x7x832
    "5b": Widths(384, 192, 384, 48, 128, 128),  #                  7x7x1024
}

BRANCHES = ("1x1", "3x3", "5x5", "pool")  # of a block, in the order in which it concatenates them

# Section 5: the auxiliary classifiers sit on the outputs of 4a and 4d, and their losses count 0.3.
AUX_TAPS = {"aux1": "4a", "aux2": "4d"}
LOSS_WEIGHTS = {"main": 1.0, "aux1": 0.3, "aux2": 0.3}
AUX_CONV = 128
AUX_DENSE = 1024
AUX_GRID = 4  # the 5x5/3 average pool of 14x14 feature maps leaves 4x4


class LRN(NamedTuple):
    """x / (k + alpha / size * sum of squares over `size` channels) ** beta."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


class BatchNorm(NamedTuple):
    """Batch normalization after each convolution; `momentum` is Keras' (the fraction of the old mean kept)."""

    momentum: float
    scale: bool = True  # gamma
    epsilon: float = 1e-3


class Pixels(NamedTuple):
    """A pixel convention: `(pixel - mean) / std`, one number for red, green and blue each, on the 0-255 scale."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Our networks take RGB. Caffe's and the ONNX zoo's take BGR; their means are reversed here, their conv1 on loading.
PIXELS = {
    "caffe": Pixels((123.0, 117.0, 104.0), (1.0, 1.0, 1.0)),  # bvlc_googlenet train_val.prototxt
    "caffe_mean_103.939": Pixels((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),  # ONNX zoo
    "torch": Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),  # 0.485 0.456 0.406 / 0.229 0.224 0.225
    "signed": Pixels((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),  # TF-slim: -1..1
    "minus_117": Pixels((117.0, 117.0, 117.0), (1.0, 1.0, 1.0)),  # inception5h
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One published family of GoogLeNet. Every family pools its last feature maps down to 1x1 before the classifier.

    Attributes:
        norm: `LRN` twice in the stem, `BatchNorm` after every convolution, or None.
        conv_bias: whether convolutions carry a bias.
        conv1_padding: "explicit" pads 3 on each side of the 7x7/2; "same" is TensorFlow's (2, 3 at even sizes).
        pool_rounding: how the stride-2 max pools treat the border: "ceil", "floor", "same", or "centered" (one row and
            column of padding on each side, as `torch.nn.MaxPool2d(3, 2, padding=1)`).
        pool4_size: window of the max pool before block 5a.
        conv5_kernel: kernel of the branch that the paper calls 5x5.
        conv5_layers: number of convolutions with that kernel in the branch, one after the other.
        blocks: the table of widths.
        aux_pool: "5x5/3" (as in the paper) or "adaptive" (4x4 whatever the size of the feature maps).
        aux_published: whether the family's published files hold the auxiliary heads.
        dropout: rate before the main classifier.
        aux_dropout: rate before the auxiliary classifiers.
        classes: outputs of the published files.
        class_list: order of those outputs (see `preprocessing.decode_predictions`).
        pixels: pixel convention that the published weights were trained on (a key of `PIXELS`).
        source: where these facts come from.
    """

    norm: LRN | BatchNorm | None
    conv_bias: bool = True
    conv1_padding: str = "explicit"
    pool_rounding: str = "ceil"
    pool4_size: int = 3
    conv5_kernel: int = 5
    conv5_layers: int = 1
    blocks: Mapping[str, Widths] = dataclasses.field(default_factory=lambda: BLOCKS)
    aux_pool: str = "5x5/3"
    aux_published: bool = True
    dropout: float = 0.4
    aux_dropout: float = 0.7
    classes: int = 1000
    class_list: str = "imagenet"
    pixels: str = "caffe"
    source: str = ""


VARIANTS = {
    "paper": Variant(LRN(), source="arXiv 1409.4842 = Caffe bvlc_googlenet"),
    "batchnorm": Variant(
        # 0.9: running statistics settle within a short run, as in torchvision (its momentum 0.1).
        BatchNorm(momentum=0.9),
        conv_bias=False,
        pixels="signed",
        source="the paper with BN (arXiv 1502.03167) in place of LRN",
    ),
    "plain": Variant(None, pixels="signed", source="the paper without its LRN, for comparison"),
    "torchvision": Variant(
        BatchNorm(momentum=0.9),
        conv_bias=False,
        pool4_size=2,
        conv5_kernel=3,  # torchvision keeps a known bug for its published weights
        aux_pool="adaptive",
        dropout=0.2,
        pixels="signed",  # transform_input=True turns ImageNet's mean and deviation back into -1..1
        source="torchvision.models.googlenet",
    ),
    "slim": Variant(
        BatchNorm(momentum=0.9997, scale=False),
        conv_bias=False,
        conv1_padding="same",
        pool_rounding="same",
        pool4_size=2,
        conv5_kernel=3,
        aux_published=False,
        dropout=0.2,
        classes=1001,
        class_list="background+imagenet",
        pixels="signed",
        source="TF-slim nets/inception_v1.py",
    ),
    "onnx_zoo": Variant(
        LRN(),
        pool_rounding="floor",
        aux_published=False,
        pixels="caffe_mean_103.939",
        source="ONNX model zoo inception-v1-*; its googlenet-* graphs have ceil pools: use `paper`",
    ),
    "inception5h": Variant(
        LRN(),
        conv1_padding="same",
        pool_rounding="same",
        blocks={
            **BLOCKS,
            "4a": BLOCKS["4a"]._replace(conv3=204),  # 508 channels out
            "5a": BLOCKS["5a"]._replace(reduce5=48),
        },
        classes=1008,
        class_list="inception5h",
        pixels="minus_117",
        source="Google's inception5h.zip, the graph of DeepDream and Lucid",
    ),
    "cifar": Variant(
        BatchNorm(momentum=0.9),
        pool_rounding="centered",
        conv5_kernel=3,
        conv5_layers=2,
        aux_published=False,
        dropout=0.0,
        classes=10,
        class_list="cifar10",
        pixels="signed",
        source="kuangliu/pytorch-cifar models/googlenet.py, which HRank (arXiv 2002.10179) and others slim",
    ),
}

STEMS = {"imagenet": 3, "small": 2, "cifar": 1}  # number of convolutions
# Name of a convolution within its block, to the width that sets its channels.
WIDTH_OF = {
    "1x1": "conv1",
    "3x3_reduce": "reduce3",
    "3x3": "conv3",
    "5x5_reduce": "reduce5",
    "5x5_first": "conv5",
    "5x5": "conv5",
    "pool_proj": "pool",
}
POOLINGS = (None, "avg", "max")
ACTIVATIONS = ("softmax", None)


class Conv(NamedTuple):
    """A convolution, its normalization and its ReLU."""

    name: str
    filters: int
    kernel: int
    stride: int = 1


class MaxPool(NamedTuple):
    """A max pool."""

    name: str
    size: int
    stride: int = 2


class ResponseNorm(NamedTuple):
    """Local response normalization; present only where the family has it."""

    name: str


class Inception(NamedTuple):
    """Parallel branches, each a chain of layers, concatenated along the channels."""

    name: str
    branches: tuple[tuple[Conv | MaxPool, ...], ...]


LayerSpec = Conv | MaxPool | ResponseNorm | Inception


def round_width(channels: float) -> int:
    """Nearest multiple of 8, halves up, never below 8."""
    return max(8, int(channels / 8 + 0.5) * 8)


class SpecArguments(TypedDict, total=False):
    """Arguments that `build_googlenet`, `GoogLeNet` and `Spec` share, as a caller may give them.

    `build_googlenet` documents them; the defaults are those of the fields of `Spec`.
    """

    input_shape: tuple[int | None, int | None, int]
    classes: int | None
    aux: bool
    include_top: bool
    pooling: str | None
    stem: str
    widths: Mapping[str, Widths | tuple[int, int, int, int, int, int]] | None
    stem_widths: Sequence[int] | None
    width_multiplier: float
    reduction: bool
    dropout: float | tuple[float | None, float | None] | None
    classifier_activation: str | None
    lrn: LRN | tuple[int, float, float, float] | None
    pixels: str | None
    class_names: Sequence[str] | None
    name: str


@dataclasses.dataclass(frozen=True, init=False)
class Spec:
    """The arguments of `build_googlenet`, checked and completed. Immutable; equal specs build equal networks.

    See `build_googlenet` for what each argument means. What is not given has the default of its field; `classes`,
    `dropout` and `pixels` default to those of the family. `dropout` ends as a pair: main head, auxiliary heads.

    Raises:
        UserError: an argument is out of range; the message names what was expected and received.
        TypeError: an unknown argument.
    """

    variant: str
    classes: int
    dropout: tuple[float, float]
    pixels: str
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3)
    aux: bool = True
    include_top: bool = True
    pooling: str | None = None
    stem: str = "imagenet"
    widths: Mapping[str, Widths] | None = None
    stem_widths: tuple[int, ...] | None = None
    width_multiplier: float = 1.0
    reduction: bool = True
    classifier_activation: str | None = "softmax"
    lrn: LRN | None = None
    class_names: tuple[str, ...] | None = None
    name: str = "googlenet"

    def __init__(self, variant: str = "paper", **arguments: Unpack[SpecArguments]) -> None:
        if unknown := arguments.keys() - SpecArguments.__annotations__.keys():
            raise TypeError(
                f"Expected arguments among {', '.join(SpecArguments.__annotations__)}; Received: {unknown}."
            )
        given: dict[str, Any] = {
            name: getattr(type(self), name, None) for name in SpecArguments.__annotations__
        } | dict(arguments)
        check_choice("variant", variant, VARIANTS)
        check_choice("stem", given["stem"], STEMS)
        check_choice("pooling", given["pooling"], POOLINGS)
        check_choice("classifier_activation", given["classifier_activation"], ACTIVATIONS)
        if not 0 < given["width_multiplier"] <= 16:
            raise UserError(
                f"Expected 0 < width_multiplier <= 16; Received: width_multiplier={given['width_multiplier']!r}."
            )
        family = VARIANTS[variant]
        given["classes"] = _checked_classes(family.classes if given["classes"] is None else given["classes"])
        given["dropout"] = _checked_dropout(given["dropout"], family)
        given["widths"] = _checked_widths(given["widths"])
        given["stem_widths"] = _checked_stem_widths(given["stem_widths"], given["stem"])
        given["lrn"] = _checked_lrn(given["lrn"], family)
        given["pixels"] = family.pixels if given["pixels"] is None else given["pixels"]
        check_choice("pixels", given["pixels"], PIXELS)
        if given["class_names"] is not None:
            given["class_names"] = check_class_names(given["class_names"], given["classes"])
        for field, value in {"variant": variant, **given}.items():
            object.__setattr__(self, field, value)  # frozen once this is over
        object.__setattr__(self, "input_shape", _checked_input_shape(self))
        if self.has_aux and family.aux_pool != "adaptive" and None in self.input_shape:
            raise UserError(
                f"Expected a fixed height and width: the auxiliary heads of variant {variant!r} flatten pooled feature "
                f"maps (pass aux=False, or the 'torchvision' variant); Received: input_shape={self.input_shape}."
            )

    @property
    def family(self) -> Variant:
        """The published family that `variant` names."""
        return VARIANTS[self.variant]

    @property
    def norm(self) -> LRN | BatchNorm | None:
        """The family's normalization, with the constants of its LRN as asked for."""
        return self.lrn or self.family.norm

    @property
    def has_aux(self) -> bool:
        """Whether the network has auxiliary heads."""
        return self.aux and self.include_top

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the outputs, none without a top, else "main" and, where present, "aux1" and "aux2"."""
        if not self.include_top:
            return ()
        return ("main", *AUX_TAPS) if self.aux else ("main",)

    def scaled(self, channels: int) -> int:
        """`channels` under the width multiplier; the published numbers stay as they are at 1."""
        return channels if self.width_multiplier == 1 else round_width(channels * self.width_multiplier)

    def block_widths(self) -> dict[str, Widths]:
        """Widths of every block: the explicit ones as given, the family's under the width multiplier."""
        table = {block: Widths(*map(self.scaled, widths)) for block, widths in self.family.blocks.items()}
        return {**table, **(self.widths or {})}

    def trunk(
        self, widths: Mapping[str, Widths] | None = None, stem_widths: Sequence[int] | None = None
    ) -> tuple[LayerSpec, ...]:
        """The body of the network in order, from the first convolution to block 5b; with other widths where given."""
        blocks = {block: self._block(block, w) for block, w in (widths or self.block_widths()).items()}
        return (
            *self._stem(stem_widths or self.all_stem_widths()),
            *(blocks[b] for b in ("3a", "3b")),
            MaxPool("pool3", 3),
            *(blocks[b] for b in ("4a", "4b", "4c", "4d", "4e")),
            MaxPool("pool4", self.family.pool4_size),
            *(blocks[b] for b in ("5a", "5b")),
        )

    def all_stem_widths(self) -> tuple[int, ...]:
        """Output channels of the stem's convolutions: the explicit ones, or the paper's under the width multiplier."""
        first, second = self.scaled(64), self.scaled(192)
        return self.stem_widths or {"imagenet": (first, first, second), "small": (first, second)}.get(
            self.stem, (second,)
        )

    def _stem(self, widths: Sequence[int]) -> tuple[LayerSpec, ...]:
        lrn = isinstance(self.norm, LRN)
        norm1 = (ResponseNorm("pool1_norm1"),) if lrn else ()
        norm2 = (ResponseNorm("conv2_norm2"),) if lrn else ()
        if self.stem == "cifar":  # 32 px: full resolution up to the pool after block 3b
            return (Conv("conv1_3x3", widths[0], 3), *((ResponseNorm("conv1_norm1"),) if lrn else ()))
        if self.stem == "small":  # 28-64 px: full resolution up to one pool
            first, second = widths
            return (Conv("conv1_3x3", first, 3), *norm1, Conv("conv2_3x3", second, 3), *norm2, MaxPool("pool2", 3))
        first, reduce, second = widths
        return (
            Conv("conv1_7x7_s2", first, 7, 2),
            MaxPool("pool1", 3),
            *norm1,
            Conv("conv2_3x3_reduce", reduce, 1),
            Conv("conv2_3x3", second, 3),
            *norm2,
            MaxPool("pool2", 3),
        )

    def _block(self, block: str, w: Widths) -> Inception:
        name = f"inception_{block}"
        conv1 = Conv(f"{name}_1x1", w.conv1, 1)
        conv3 = Conv(f"{name}_3x3", w.conv3, 3)
        first5 = Conv(f"{name}_5x5_first", w.conv5, self.family.conv5_kernel)
        conv5 = (*(first5,) * (self.family.conv5_layers - 1), first5._replace(name=f"{name}_5x5"))
        pool = MaxPool(f"{name}_pool", 3, 1)
        if not self.reduction:  # Figure 2(a), the naive module
            return Inception(name, ((conv1,), (conv3,), conv5, (pool,)))
        return Inception(
            name,
            (
                (conv1,),
                (Conv(f"{name}_3x3_reduce", w.reduce3, 1), conv3),
                (Conv(f"{name}_5x5_reduce", w.reduce5, 1), *conv5),
                (pool, Conv(f"{name}_pool_proj", w.pool, 1)),
            ),
        )

    def out_size(self, layer: LayerSpec, size: int | None) -> int | None:
        """Height or width after `layer`; None stays None. Zero or less: `layer` does not fit."""
        if size is None or isinstance(layer, ResponseNorm | Inception) or layer.stride == 1:
            return size
        # 7x7/2, padded 3,3 or same, rounds up too; so does 3x3/2 with a padding of 1 on each side.
        if isinstance(layer, Conv) or self.family.pool_rounding in ("same", "centered"):
            return math.ceil(size / layer.stride)
        round_ = {"ceil": math.ceil, "floor": math.floor}[self.family.pool_rounding]
        return round_((size - layer.size) / layer.stride) + 1

    def aux_grid(self, height: int | None, width: int | None) -> tuple[int, int] | None:
        """Size of an auxiliary head's map after the 5x5/3 pool; None where the pool is an adaptive 4x4.

        The adaptive pool is the family's own, or stands in where a 5x5 window does not fit the map.
        """
        if self.family.aux_pool == "adaptive" or height is None or width is None or min(height, width) < 5:
            return None
        return ((height - 5) // 3 + 1, (width - 5) // 3 + 1)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `Spec(**d)` gives the same spec back."""
        fields = dataclasses.asdict(self)
        for key in ("input_shape", "stem_widths", "dropout", "lrn", "class_names"):
            fields[key] = None if fields[key] is None else list(fields[key])
        if self.widths is not None:
            fields["widths"] = {block: list(widths) for block, widths in self.widths.items()}
        return fields


def signature(variant: inspect.Parameter, *more: inspect.Parameter) -> inspect.Signature:
    """What `inspect.signature` shows of a callable that takes `SpecArguments` between these parameters."""
    own = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=getattr(Spec, name, None), annotation=annotation
        )
        for name, annotation in SpecArguments.__annotations__.items()
    ]
    return inspect.Signature([variant, *own, *more])


def read_spec(path: str | os.PathLike[str]) -> Spec:
    """The spec in a JSON file, such as a run's `spec.json`.

    Raises:
        UserError: the file cannot be read, or holds no spec.
    """
    try:
        return Spec(**json.loads(Path(path).read_text("utf-8")))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"Expected a spec in {str(path)!r}; Received: {error}.") from error


def read_class_names(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a text file, each the name of a class in label order. See `check_class_names` for what they may be.

    Raises:
        UserError: the file cannot be read as UTF-8 text.
    """
    try:
        return Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Expected class names, one a line, in {str(path)!r}; Received: {error}.") from error


def check_class_names(names: Any, classes: int) -> tuple[str, ...]:
    """The names of classes, as files of one name a line can hold them.

    Args:
        names: a sequence of strings in label order.
        classes: how many there must be.

    Raises:
        UserError: no sequence of strings, a name that is blank or not one line of text, or another number of them.
    """
    checked = tuple(names) if isinstance(names, Sequence) and not isinstance(names, str) else ()
    if not checked or not all(isinstance(name, str) for name in checked):
        raise UserError(f"Expected class_names to be a list of strings; Received: class_names={str(names)[:80]!r}.")
    for name in checked:
        if name.splitlines() != [name] or not name.strip() or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(f"Expected class names of one line of text each; Received: {name!r}.")
    if len(checked) != classes:
        raise UserError(f"Expected {classes} class names, one a class; Received: {len(checked)}.")
    return checked


def check_choice(what: str, value: Any, choices: Iterable[Any], error: type[Exception] = UserError) -> None:
    """Raises `error` naming every choice, and the nearest one, unless `value` is among them."""
    choices = list(choices)
    if value in choices:
        return
    near = difflib.get_close_matches(str(value).lower(), [c for c in choices if isinstance(c, str)], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise error(f"Expected {what} to be one of {', '.join(map(repr, choices))}; Received: {what}={value!r}.{hint}")


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)  # NumPy's integers included


def _checked_classes(classes: Any) -> int:
    if not _is_int(classes) or classes < 1:
        raise UserError(f"Expected classes to be an integer >= 1; Received: classes={classes!r}.")
    return int(classes)


def _checked_dropout(dropout: Any, family: Variant) -> tuple[float, float]:
    rates = tuple(dropout) if isinstance(dropout, tuple | list) else (dropout, None)
    own = (family.dropout, family.aux_dropout)
    pair = tuple(default if rate is None else rate for rate, default in zip(rates, own)) if len(rates) == 2 else rates
    if len(pair) != 2 or not all(isinstance(rate, int | float) and 0 <= rate < 1 for rate in pair):
        raise UserError(
            "Expected dropout to be a rate in [0, 1) or a pair of them (main, auxiliary); "
            f"Received: dropout={dropout!r}."
        )
    return (float(pair[0]), float(pair[1]))


def _checked_lrn(lrn: Any, family: Variant) -> LRN | None:
    if lrn is None:
        return None
    if not isinstance(family.norm, LRN):
        raise UserError(f"Expected no lrn in a family without it; Received: lrn={lrn!r}.")
    numbers = tuple(lrn) if isinstance(lrn, tuple | list) else (lrn,)
    if len(numbers) != 4 or not all(isinstance(n, int | float) for n in numbers):
        raise UserError(f"Expected lrn to be four numbers ({', '.join(LRN._fields)}); Received: lrn={lrn!r}.")
    return LRN(*numbers)


def _checked_widths(widths: Any) -> dict[str, Widths] | None:
    if widths is None:
        return None
    if not isinstance(widths, Mapping):
        raise UserError(f"Expected widths to map block names to six numbers; Received: widths={widths!r}.")
    checked = {}
    for block, numbers in widths.items():
        check_choice("block", block, BLOCKS)
        numbers = tuple(numbers) if isinstance(numbers, Iterable) else (numbers,)
        if len(numbers) != 6 or not all(_is_int(n) and n >= 1 for n in numbers):
            raise UserError(
                f"Expected widths[{block!r}] to be six integers >= 1 ({', '.join(Widths._fields)}); "
                f"Received: {numbers}."
            )
        checked[block] = Widths(*map(int, numbers))
    return checked or None


def _checked_stem_widths(widths: Any, stem: str) -> tuple[int, ...] | None:
    if widths is None:
        return None
    numbers = tuple(widths) if isinstance(widths, Iterable) else (widths,)
    if len(numbers) != STEMS[stem] or not all(_is_int(n) and n >= 1 for n in numbers):
        raise UserError(
            f"Expected stem_widths to be {STEMS[stem]} integers >= 1, one for each convolution of the {stem!r} stem; "
            f"Received: stem_widths={widths!r}."
        )
    return tuple(map(int, numbers))


def _checked_input_shape(spec: Spec) -> tuple[int | None, int | None, int]:
    shape = tuple(spec.input_shape) if isinstance(spec.input_shape, Iterable) else (spec.input_shape,)
    sizes_ok = len(shape) == 3 and all(n is None or (_is_int(n) and n >= 1) for n in shape)
    if not sizes_ok or shape[2] is None:
        raise UserError(
            "Expected input_shape to be (height, width, channels), height and width positive or None; "
            f"Received: input_shape={spec.input_shape!r}."
        )
    smallest = smallest_input(spec)
    if any(n is not None and n < smallest for n in shape[:2]):
        raise UserError(
            f"Expected height and width of at least {smallest} for variant {spec.variant!r} "
            f"with the {spec.stem!r} stem; Received: input_shape={shape}."
        )
    height, width, channels = (None if n is None else int(n) for n in shape)
    return (height, width, typing.cast(int, channels))


def smallest_input(spec: Spec) -> int:
    """Smallest height and width (pixels) that leave at least one position after every pool."""
    size = 1
    for layer in reversed(spec.trunk()):
        wanted = size
        while typing.cast(int, spec.out_size(layer, size)) < wanted:
            size += 1
    return size

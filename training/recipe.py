"""A run's settings: one frozen dataclass.

Importing this module imports neither Keras nor TensorFlow, so that a command line is parsed at once.
"""

import dataclasses
import functools
import typing
from typing import Annotated, Any, Literal

from training.errors import UserError


@dataclasses.dataclass(frozen=True)
class Range:
    """The finite numbers between two bounds: a field's annotation, from which errors and tests take what it may hold.

    Attributes:
        low: smallest number.
        high: largest number.
        above: whether `low` itself is not among them.
        below: whether `high` itself is not among them.
    """

    low: float
    high: float
    above: bool = False
    below: bool = True

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.above else value >= self.low
        return above and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        high = f"{'below ' if self.below else ''}{self.high:,}"
        return f"above {self.low} and {high}" if self.above else f"from {self.low} to {high}"


LARGE = 10**9  # far beyond what makes sense, and far below what overflows
POSITIVE, NONNEGATIVE, FRACTION, COUNT = Range(0, LARGE, above=True), Range(0, LARGE), Range(0, 1), Range(1, LARGE)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes. Durations are in epochs, sizes in pixels or images."""

    source: str = "digits"
    """digits, fashion_mnist, folder:PATH, or a name of TensorFlow Datasets."""
    data_dir: str | None = None
    """Folder of prepared datasets; none: the folder of TFDS."""
    train_split: str | None = None
    """TFDS split to train on, e.g. "train[:90%]"; none: the dataset's, less what validation takes."""
    validation_split: str | None = None
    """Split that chooses the best epoch; none: the dataset's own, or the tail of train."""
    test_split: str | None = None
    """Split that only the final numbers see; none: the dataset's own, or one that choices do not see."""
    validation_fraction: Annotated[float, Range(0, 0.5, above=True)] = 0.1
    """Fraction of train that is held out where the dataset has no validation split."""

    variant: str = "batchnorm"
    """Family of the network."""
    stem: str = "imagenet"
    """imagenet, small for images of 28-64 px, or cifar for 32 px."""
    width_multiplier: Annotated[float, Range(0, 16, above=True, below=False)] = 1.0
    """Scales the filters of every convolution."""
    aux: bool = True
    """Train the two auxiliary heads too."""
    dropout: Annotated[float | None, FRACTION] = None
    """Rate before the main classifier; none: as in the family."""
    aux_dropout: Annotated[float | None, FRACTION] = None
    """Rate before the auxiliary classifiers; none: as in the family, 0.7."""
    pixels: str | None = None
    """Pixel convention of the network's input, e.g. signed or caffe; none: the family's."""

    weights: str | None = None
    """A .keras file to start from; its network replaces variant, stem, width and pixels, its classifiers are new."""
    freeze_until: str | None = None
    """Last block (3a ... 5b) or other row of the body that does not train."""
    unfreeze_epochs: Annotated[int | None, COUNT] = None
    """Epochs after which everything trains, stage after stage from the heads down; none: frozen layers stay frozen."""
    freeze_batch_norm: bool = False
    """Freeze the body's batch normalization, with the running statistics of the training images; frozen blocks keep
    those of the weights."""
    stage_rate: Annotated[float, POSITIVE] = 1.0
    """Factor of the learning rate from each stage to the one below: heads, 5, 4, 3, stem."""

    image_size: Annotated[int, Range(1, 2**13, below=False)] = 224
    """Height and width that images are resized to, in pixels."""
    paper_augment: bool = False
    """The paper's augmentation: 8-100 % crops, random interpolation, mirror, photometric distortions."""
    rotate: Annotated[float, NONNEGATIVE] = 0.0
    """Random rotation, at most this many degrees either way."""
    zoom: Annotated[float, FRACTION] = 0.0
    """Random zoom: a factor from 1 - zoom to 1 + zoom."""
    shift: Annotated[float, FRACTION] = 0.0
    """Random shift, at most this fraction of the image either way."""
    flip: bool = False
    """Mirror half of the images left to right."""
    erase: Annotated[float, Range(0, 1, below=False)] = 0.0
    """Random erasing: fraction of the images in which a rectangle becomes noise."""
    mixup: Annotated[float, NONNEGATIVE] = 0.0
    """Strength (alpha) of mixup; 0: none. With cutmix, each batch gets one of the two."""
    cutmix: Annotated[float, NONNEGATIVE] = 0.0
    """Strength (alpha) of CutMix; 0: none."""
    unreadable: Annotated[float, FRACTION] = 0.01
    """Largest fraction of images that may be unreadable; they are left out and named in metrics.json."""

    epochs: Annotated[int, COUNT] = 20
    """Passes over the training split."""
    batch_size: Annotated[int, COUNT] = 64
    """Images per step and replica."""
    learning_rate: Annotated[float, POSITIVE] = 0.1
    """Peak learning rate for batches of base_batch_size; other batch sizes scale it linearly."""
    base_batch_size: Annotated[int, COUNT] = 64
    """Images per step that learning_rate is meant for."""
    schedule: Literal["cosine", "staircase", "polynomial"] = "cosine"
    """cosine: decays to zero; staircase: 4 % less every 8 epochs; polynomial: times the square root of what is left."""
    warmup_epochs: Annotated[float, NONNEGATIVE] = 1.0
    """Epochs in which the learning rate rises linearly from zero."""
    momentum: Annotated[float, FRACTION] = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Use Nesterov's momentum."""
    bias_rate: Annotated[float, POSITIVE] = 1.0
    """Factor of the learning rate for biases."""
    weight_decay: Annotated[float, NONNEGATIVE] = 5e-4
    """Decoupled weight decay of kernels, times the learning rate."""
    l2: Annotated[float, NONNEGATIVE] = 0.0
    """Weight decay of kernels in Caffe's convention: l2 * kernel is added to the gradient."""
    average: Annotated[float | None, FRACTION] = None
    """Momentum per step of an exponential moving average of the weights (Polyak averaging); none: no average."""
    aux_weight: Annotated[float, NONNEGATIVE] = 0.3
    """Weight of each auxiliary loss."""
    aux_schedule: Literal["constant", "linear"] = "constant"
    """linear: the auxiliary weight falls to zero over the run."""
    sync_batch_norm: bool = False
    """Compute batch statistics over all replicas (always so on JAX)."""
    label_smoothing: Annotated[float, FRACTION] = 0.0
    """Fraction of the label's mass that is spread evenly over all classes."""
    teacher: str | None = None
    """Run or .keras file whose network's probabilities are learned too; it takes the same images and classes."""
    teacher_weight: Annotated[float, POSITIVE] = 1.0
    """Weight of the divergence from the teacher's probabilities, for each head, beside its cross-entropy."""
    distill_heads: Annotated[float, NONNEGATIVE] = 0.0
    """Weight of the divergence of each auxiliary head from the main head's probabilities (self-distillation)."""
    temperature: Annotated[float, POSITIVE] = 2.0
    """Temperature by which logits are divided where probabilities are learned."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Precision of the network's arithmetic; weights and losses stay float32."""
    seed: Annotated[int, Range(0, 2**31)] = 0
    """Seed of initial weights, order, augmentation and dropout."""
    deterministic: bool = False
    """The same seed gives bitwise identical weights (slower)."""

    def __post_init__(self) -> None:
        check_numbers(self)
        check_choices(self)
        for name, needed in (("freeze_until", "weights"), ("unfreeze_epochs", "freeze_until")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise UserError(f"Expected {needed} with {name}; Received: {name}={getattr(self, name)!r} alone.")
        if self.distill_heads and not self.aux:
            raise UserError(
                f"Expected auxiliary heads to distill; Received: distill_heads={self.distill_heads}, aux=False."
            )


@dataclasses.dataclass(frozen=True)
class NumericField:
    """What a numeric field of a dataclass may hold.

    Attributes:
        range: of its numbers.
        integer: whether they are integers.
        optional: whether it may be None too.
    """

    range: Range
    integer: bool
    optional: bool

    def check(self, name: str, value: Any) -> None:
        """Raises UserError unless the field may hold `value`."""
        if value is None and self.optional:
            return
        number = isinstance(value, int if self.integer else int | float) and not isinstance(value, bool)
        if not number or value not in self.range:
            raise UserError(
                f"Expected {name} to be {'an integer' if self.integer else 'a number'} {self.range}"
                f"{', or None' if self.optional else ''}; Received: {name}={value!r}."
            )


@functools.cache
def _hints(settings: type) -> dict[str, Any]:
    """The annotations of a dataclass by field."""
    return typing.get_type_hints(settings, include_extras=True)


@functools.cache
def numeric_fields(settings: type = Recipe) -> dict[str, NumericField]:
    """The fields of a dataclass that have a `Range`, by name, read from its annotations."""
    found = {}
    for name, hint in _hints(settings).items():
        for known in getattr(hint, "__metadata__", ()):
            if isinstance(known, Range):
                types = typing.get_args(hint.__origin__) or (hint.__origin__,)
                found[name] = NumericField(known, int in types, type(None) in types)
    return found


def check_numbers(settings: Any) -> None:
    """Raises UserError unless every field of a dataclass that has a `Range` holds a number of it."""
    kind: type = type(settings)
    for name, known in numeric_fields(kind).items():
        known.check(name, getattr(settings, name))


def check_choices(settings: Any) -> None:
    """Raises UserError unless every field of a dataclass that is a `Literal` holds one of its values."""
    kind: type = type(settings)
    for name, hint in _hints(kind).items():
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        if choices and getattr(settings, name) not in choices:
            raise UserError(
                f"Expected {name} to be one of {', '.join(map(repr, choices))}; "
                f"Received: {name}={getattr(settings, name)!r}."
            )


def with_global_batch(recipe: Recipe, replicas: int) -> Recipe:
    """The recipe of a step that several replicas share, each with the batch size of `recipe`."""
    return dataclasses.replace(recipe, batch_size=recipe.batch_size * replicas)


def peak_learning_rate(recipe: Recipe) -> float:
    """The learning rate after the warm-up: linear in the batch size (arXiv 1706.02677, section 2.1)."""
    return recipe.learning_rate * recipe.batch_size / recipe.base_batch_size

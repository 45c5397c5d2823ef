"""A run's settings: one frozen dataclass.

Importing this module imports neither Keras nor TensorFlow, so that a command line is parsed at once.
"""

import dataclasses
import typing
from typing import Literal

from training.errors import UserError


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
    validation_fraction: float = 0.1
    """Fraction of train that is held out where the dataset has no validation split."""

    variant: str = "batchnorm"
    """Family of the network."""
    stem: str = "imagenet"
    """imagenet, or small for images of 28-64 px."""
    width_multiplier: float = 1.0
    """Scales the filters of every convolution."""
    aux: bool = True
    """Train the two auxiliary heads too."""
    dropout: float | None = None
    """Rate before the main classifier; none: as in the family."""
    pixels: str | None = None
    """Pixel convention of the network's input, e.g. signed or caffe; none: the family's."""

    weights: str | None = None
    """A .keras file to start from; its network replaces variant, stem, width and pixels, its classifiers are new."""
    freeze_until: str | None = None
    """Last block (3a ... 5b) or other row of the body that does not train."""
    unfreeze_epochs: int | None = None
    """Epochs after which everything trains, stage after stage from the heads down; none: frozen layers stay frozen."""
    stage_rate: float = 1.0
    """Factor of the learning rate from each stage to the one below: heads, 5, 4, 3, stem."""

    image_size: int = 224
    """Height and width that images are resized to, in pixels."""
    paper_augment: bool = False
    """The paper's augmentation: 8-100 % crops, random interpolation, mirror, photometric distortions."""
    rotate: float = 0.0
    """Random rotation, at most this many degrees either way."""
    zoom: float = 0.0
    """Random zoom: a factor from 1 - zoom to 1 + zoom."""
    shift: float = 0.0
    """Random shift, at most this fraction of the image either way."""
    flip: bool = False
    """Mirror half of the images left to right."""
    erase: float = 0.0
    """Random erasing: fraction of the images in which a rectangle becomes noise."""
    mixup: float = 0.0
    """Strength (alpha) of mixup; 0: none. With cutmix, each batch gets one of the two."""
    cutmix: float = 0.0
    """Strength (alpha) of CutMix; 0: none."""
    unreadable: float = 0.01
    """Largest fraction of images that may be unreadable; they are left out and named in metrics.json."""

    epochs: int = 20
    """Passes over the training split."""
    batch_size: int = 64
    """Images per step and replica."""
    learning_rate: float = 0.1
    """Peak learning rate for batches of base_batch_size; other batch sizes scale it linearly."""
    base_batch_size: int = 64
    """Images per step that learning_rate is meant for."""
    schedule: Literal["cosine", "staircase", "polynomial"] = "cosine"
    """cosine: decays to zero; staircase: 4 % less every 8 epochs; polynomial: times the square root of what is left."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises linearly from zero."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Use Nesterov's momentum."""
    bias_rate: float = 1.0
    """Factor of the learning rate for biases."""
    weight_decay: float = 5e-4
    """Decoupled weight decay of kernels, times the learning rate."""
    l2: float = 0.0
    """Weight decay of kernels in Caffe's convention: l2 * kernel is added to the gradient."""
    average: float | None = None
    """Momentum per step of an exponential moving average of the weights (Polyak averaging); none: no average."""
    aux_weight: float = 0.3
    """Weight of each auxiliary loss."""
    aux_schedule: Literal["constant", "linear"] = "constant"
    """linear: the auxiliary weight falls to zero over the run."""
    sync_batch_norm: bool = False
    """Compute batch statistics over all replicas (always so on JAX)."""
    label_smoothing: float = 0.0
    """Fraction of the label's mass that is spread evenly over all classes."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Precision of the network's arithmetic; weights and losses stay float32."""
    seed: int = 0
    """Seed of initial weights, order, augmentation and dropout."""
    deterministic: bool = False
    """The same seed gives bitwise identical weights (slower)."""

    def __post_init__(self) -> None:
        positive = ("image_size", "epochs", "batch_size", "base_batch_size", "learning_rate", "bias_rate", "stage_rate")
        fractions = ("validation_fraction", "zoom", "shift", "label_smoothing", "momentum", "unreadable")
        natural = ("rotate", "warmup_epochs", "weight_decay", "l2", "mixup", "cutmix", "aux_weight", "seed")
        for names, holds, expected in (
            (positive, lambda v: v > 0, "above zero"),
            (fractions, lambda v: 0 <= v < 1, "from 0 to below 1"),
            (("erase",), lambda v: 0 <= v <= 1, "from 0 to 1"),
            (natural, lambda v: v >= 0, "zero or more"),
            (("average",), lambda v: 0 <= v < 1, "from 0 to below 1, or None"),
            (("unfreeze_epochs",), lambda v: v > 0, "above zero, or None"),
        ):
            for name in names:
                value = getattr(self, name)
                if name in ("average", "unfreeze_epochs") and value is None:
                    continue
                if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
                    raise UserError(f"Expected {name} to be a number {expected}; Received: {name}={value!r}.")
        for name in ("schedule", "aux_schedule", "precision"):
            choices = typing.get_args(typing.get_type_hints(type(self))[name])
            if getattr(self, name) not in choices:
                raise UserError(
                    f"Expected {name} to be one of {', '.join(map(repr, choices))}; "
                    f"Received: {name}={getattr(self, name)!r}."
                )
        for name, needed in (("freeze_until", "weights"), ("unfreeze_epochs", "freeze_until")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise UserError(f"Expected {needed} with {name}; Received: {name}={getattr(self, name)!r} alone.")
        if not 0 < self.validation_fraction < 0.5:
            raise UserError(
                "Expected validation_fraction to be above 0 and below 0.5; "
                f"Received: validation_fraction={self.validation_fraction!r}."
            )


def with_global_batch(recipe: Recipe, replicas: int) -> Recipe:
    """The recipe of a step that several replicas share, each with the batch size of `recipe`."""
    return dataclasses.replace(recipe, batch_size=recipe.batch_size * replicas)


def peak_learning_rate(recipe: Recipe) -> float:
    """The learning rate after the warm-up: linear in the batch size (arXiv 1706.02677, section 2.1)."""
    return recipe.learning_rate * recipe.batch_size / recipe.base_batch_size

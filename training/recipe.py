"""A run's settings: one frozen dataclass, its presets, and the schedule, optimizer and network they make.

Importing this module imports neither Keras nor TensorFlow, so that a command line can be parsed at once.
"""

import dataclasses
import difflib
import json
import os
import typing
from pathlib import Path
from typing import Literal

if typing.TYPE_CHECKING:
    import keras

    from inception_v1 import Spec


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes. Durations are in epochs, sizes in pixels or images."""

    source: str = "digits"
    """digits, fashion_mnist, folder:PATH, or a name of TensorFlow Datasets."""
    data_dir: str | None = None
    """Where prepared datasets live; none: the folder of TFDS."""
    train_split: str | None = None
    """TFDS split to train on, e.g. "train[:90%]"; none: the dataset's, less what validation takes."""
    validation_split: str | None = None
    """Split that chooses the best epoch; none: the dataset's own, or the tail of train."""
    test_split: str | None = None
    """Split that only the final numbers see; none: the dataset's own, or one that choices do not see."""
    validation_fraction: float = 0.1
    """Share of train held out where the dataset has no validation split."""

    variant: str = "batchnorm"
    """Family of the network."""
    stem: str = "imagenet"
    """imagenet, or small for 28-64 px."""
    width_multiplier: float = 1.0
    """Scales every convolution."""
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
    """Epochs after which everything trains, stage after stage from the heads down; none: what is frozen stays so."""
    stage_rate: float = 1.0
    """Factor of the learning rate from each stage to the one below: heads, 5, 4, 3, stem."""

    image_size: int = 224
    """Height and width that pictures are resized to."""
    paper_augment: bool = False
    """The paper's augmentation: 8-100 % crops, random interpolation, mirror, photometric distortions."""
    rotate: float = 0.0
    """Random rotation, at most this many degrees either way."""
    zoom: float = 0.0
    """Random zoom: a factor from 1 - zoom to 1 + zoom."""
    shift: float = 0.0
    """Random shift, at most this share of the image either way."""
    flip: bool = False
    """Mirror half of the images left to right."""
    erase: float = 0.0
    """Random erasing: share of the images in which a rectangle becomes noise."""
    mixup: float = 0.0
    """Strength (alpha) of mixup; 0: none. With cutmix, each batch gets one of the two."""
    cutmix: float = 0.0
    """Strength (alpha) of CutMix; 0: none."""
    unreadable: float = 0.01
    """Largest share of pictures that may be unreadable; they are left out and named in the report."""

    epochs: int = 20
    """Passes over the training split."""
    batch_size: int = 64
    """Images per step and replica."""
    learning_rate: float = 0.1
    """Peak, at a batch of base_batch_size; other batch sizes scale it linearly."""
    base_batch_size: int = 64
    """Images per step that learning_rate is meant for."""
    schedule: Literal["cosine", "staircase", "polynomial"] = "cosine"
    """cosine: down to zero; staircase: 4 % less every 8 epochs; polynomial: times the square root of what is left."""
    warmup_epochs: float = 1.0
    """Linear from zero."""
    momentum: float = 0.9
    """Of SGD."""
    nesterov: bool = True
    """Nesterov's momentum."""
    bias_rate: float = 1.0
    """Factor of the learning rate for biases."""
    weight_decay: float = 5e-4
    """Of kernels only: decoupled, times the learning rate."""
    l2: float = 0.0
    """Weight decay of kernels in Caffe's convention: joins the gradient as l2 * kernel."""
    average: float | None = None
    """Momentum of a Polyak average of the weights, per step; none: no average."""
    aux_weight: float = 0.3
    """Weight of each auxiliary loss."""
    aux_schedule: Literal["constant", "linear"] = "constant"
    """linear: the auxiliary weight falls to zero over the run."""
    sync_batch_norm: bool = False
    """Batch statistics over all replicas (on JAX always)."""
    label_smoothing: float = 0.0
    """Share of the label's mass spread over all classes."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Of the network's arithmetic; weights and losses stay float32."""
    seed: int = 0
    """Of initial weights, order, augmentation and dropout."""
    deterministic: bool = False
    """Same seed, same weights to the bit (slower)."""

    def __post_init__(self):
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
                    raise ValueError(f"Expected {name} to be a number {expected}; Received: {name}={value!r}.")
        for name in ("schedule", "aux_schedule", "precision"):
            choices = typing.get_args(typing.get_type_hints(type(self))[name])
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"Expected {name} to be one of {', '.join(map(repr, choices))}; "
                    f"Received: {name}={getattr(self, name)!r}."
                )
        for name, needed in (("freeze_until", "weights"), ("unfreeze_epochs", "freeze_until")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise ValueError(f"Expected {needed} with {name}; Received: {name}={getattr(self, name)!r} alone.")
        if not 0 < self.validation_fraction < 0.5:
            raise ValueError(
                "Expected validation_fraction to be above 0 and below 0.5; "
                f"Received: validation_fraction={self.validation_fraction!r}."
            )


PRESETS = {
    # 1,437 images of 8x8 pixels, enlarged to 32: 99.7-100 % test top-1 in about 72 s on 2 cores (README).
    "digits": Recipe(
        source="digits",
        width_multiplier=0.5,  # half the channels lose nothing here
        image_size=32,  # the smallest that the imagenet stem takes
        rotate=10.0,  # about how far handwriting leans
        zoom=0.1,
        shift=0.06,  # half of an original pixel
        epochs=30,
        warmup_epochs=2,  # at 0.1 from the first step the heads start by diverging
    ),
    # 60,000 images of 28x28 pixels: 94.8 and 94.6 % test top-1 (seeds 0, 1) in about 43 minutes on 2 cores (README).
    "fashion": Recipe(
        source="fashion_mnist",
        validation_fraction=0.05,  # 3,000 images tell the epochs apart
        stem="small",
        width_multiplier=0.5,
        image_size=28,
        shift=0.08,  # two pixels
        flip=True,
        erase=0.25,
        epochs=16,
        batch_size=128,  # 1.1 times the images per second of 64
        base_batch_size=128,
        learning_rate=0.1,  # at 0.2, without erasing, validation ended 0.6 points lower
        weight_decay=5e-3,  # what the usual 5e-4 in the gradient comes to under a momentum of 0.9
        label_smoothing=0.1,  # arXiv 1512.00567, section 7
        precision="mixed_bfloat16",  # 1.4 times the images per second on a CPU with AVX-512 BF16
    ),
    # ImageNet as in 2014: arXiv 1409.4842, section 6, and Caffe's bvlc_googlenet for what the paper leaves open.
    "paper": Recipe(
        source="imagenet2012",
        variant="paper",
        paper_augment=True,  # section 6
        epochs=250,  # solver.prototxt: 10 M steps of 32 of 1,281,167 images
        batch_size=32,  # train_val.prototxt
        base_batch_size=32,
        learning_rate=0.01,  # solver.prototxt, base_lr
        schedule="staircase",  # section 6: "decreasing the learning rate by 4% every 8 epochs"
        warmup_epochs=0,
        nesterov=False,  # Caffe's SGD
        bias_rate=2.0,  # train_val.prototxt, lr_mult of every second blob
        weight_decay=0.0,
        l2=2e-4,  # solver.prototxt, weight_decay; decay_mult 0 for biases
        average=0.9999,  # section 6 asks for Polyak averaging without a number; this is TF-slim's
    ),
    # ImageNet in 60 epochs: Caffe's bvlc_googlenet/quick_solver.prototxt.
    "quick": Recipe(
        source="imagenet2012",
        variant="paper",
        paper_augment=True,
        epochs=60,  # 2.4 M steps of 32
        batch_size=32,
        base_batch_size=32,
        learning_rate=0.01,  # base_lr
        schedule="polynomial",  # lr_policy "poly", power 0.5
        warmup_epochs=0,
        nesterov=False,
        bias_rate=2.0,
        weight_decay=0.0,
        l2=2e-4,
    ),
    # ImageNet with what was learnt since. Not run: no ImageNet where it was written.
    "modern": Recipe(
        source="imagenet2012",
        variant="batchnorm",  # arXiv 1502.03167
        paper_augment=True,
        mixup=0.1,  # light: the lower end of what arXiv 1710.09412, section 3.1, found to help
        epochs=300,  # as MindCV's googlenet, 72.89 % top-1
        batch_size=256,
        base_batch_size=256,
        learning_rate=0.1,  # arXiv 1706.02677, section 5.1: 0.1 for 256 images
        warmup_epochs=5,  # same, section 2.2
        weight_decay=4e-4,  # MindCV's 4e-5 joins the gradient: momentum makes ten times that of it
        average=0.9999,
        label_smoothing=0.1,  # MindCV; arXiv 1512.00567, section 7
    ),
}


def preset(name: str) -> Recipe:
    """The preset of that name, or the recipe in a JSON file.

    Raises:
        ValueError: neither; or the file is no recipe.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name.endswith(".json"):
        return read(name)
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"Expected recipe to be one of {', '.join(map(repr, PRESETS))} or a .json file; "
        f"Received: recipe={name!r}.{hint}"
    )


def for_source(source: str) -> Recipe:
    """The preset made for a source, or the defaults with the paper's augmentation."""
    made = [recipe for recipe in PRESETS.values() if recipe.source == source]
    return made[0] if made else Recipe(source=source, paper_augment=True)


def read(path: str | os.PathLike) -> Recipe:
    """The recipe in a JSON file.

    Raises:
        ValueError: the file cannot be read, or has another set of fields.
    """
    try:
        fields = json.loads(Path(path).read_text("utf-8"))
        return Recipe(**fields)
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"Expected a recipe in {str(path)!r}; Received: {error}.") from error


def network(recipe: Recipe, channels: int, classes: int) -> "Spec":
    """The network that a recipe trains on images of so many channels and classes."""
    from inception_v1 import Spec

    return Spec(
        recipe.variant,
        input_shape=(recipe.image_size, recipe.image_size, channels),
        classes=classes,
        aux=recipe.aux,
        stem=recipe.stem,
        width_multiplier=recipe.width_multiplier,
        dropout=recipe.dropout,
        pixels=recipe.pixels,
    )


def peak_rate(recipe: Recipe) -> float:
    """The learning rate after the warm-up: linear in the batch size (arXiv 1706.02677, section 2.1)."""
    return recipe.learning_rate * recipe.batch_size / recipe.base_batch_size


def schedule(recipe: Recipe, steps_per_epoch: int) -> "keras.optimizers.schedules.LearningRateSchedule":
    """The learning rate over the steps of a run: warm-up, then as `recipe.schedule` says."""
    import keras

    from training.optimizer import Warmup

    peak = peak_rate(recipe)
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    rest = max(1, recipe.epochs * steps_per_epoch - warmup)
    decays = keras.optimizers.schedules
    after = {
        "cosine": lambda: decays.CosineDecay(peak, rest),
        "staircase": lambda: decays.ExponentialDecay(peak, 8 * steps_per_epoch, 0.96, staircase=True),
        "polynomial": lambda: decays.PolynomialDecay(peak, rest, end_learning_rate=0.0, power=0.5),
    }[recipe.schedule]()
    return Warmup(after, warmup) if warmup else after


def optimizer(recipe: Recipe, steps_per_epoch: int) -> "keras.optimizers.Optimizer":
    """SGD as the recipe says, not built yet."""
    from training.optimizer import SGD
    from training.transfer import stage_rates

    rates = {"/bias": recipe.bias_rate} if recipe.bias_rate != 1 else {}
    if recipe.stage_rate != 1:
        rates |= stage_rates(recipe.stage_rate)
    return SGD(
        schedule(recipe, steps_per_epoch),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        decay=recipe.weight_decay,
        l2=recipe.l2,
        rates=rates,
        average=recipe.average,
    )

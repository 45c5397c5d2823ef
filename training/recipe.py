"""A run's settings: one frozen dataclass, its presets, and the schedule, optimizer and network they make.

Importing this module imports neither Keras nor TensorFlow, so that a command line can be parsed at once.
"""

import dataclasses
import difflib
import json
import os
import typing
from pathlib import Path

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

    epochs: int = 20
    """Passes over the training split."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 0.1
    """Peak, reached after the warm-up."""
    warmup_epochs: float = 1.0
    """Linear from zero."""
    momentum: float = 0.9
    """Nesterov's."""
    weight_decay: float = 5e-4
    """Decoupled, times the learning rate; kernels only."""
    label_smoothing: float = 0.0
    """Share of the label's mass spread over all classes."""
    seed: int = 0
    """Of initial weights, order, augmentation and dropout."""
    deterministic: bool = False
    """Same seed, same weights to the bit (slower)."""

    def __post_init__(self):
        positive = ("image_size", "epochs", "batch_size", "learning_rate")
        fractions = ("validation_fraction", "zoom", "shift", "label_smoothing", "momentum")
        natural = ("rotate", "warmup_epochs", "weight_decay", "seed")
        for names, holds, expected in (
            (positive, lambda v: v > 0, "above zero"),
            (fractions, lambda v: 0 <= v < 1, "from 0 to below 1"),
            (natural, lambda v: v >= 0, "zero or more"),
        ):
            for name in names:
                value = getattr(self, name)
                if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
                    raise ValueError(f"Expected {name} to be a number {expected}; Received: {name}={value!r}.")
        if not 0 < self.validation_fraction < 0.5:
            raise ValueError(
                "Expected validation_fraction to be above 0 and below 0.5; "
                f"Received: validation_fraction={self.validation_fraction!r}."
            )


PRESETS = {
    # 1,437 images of 8x8 pixels, enlarged to 32: 99.7-100 % test top-1 in about 75 s on 2 cores (README).
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
    # 60,000 images of 28x28 pixels. The search for the accuracy it can reach is still to be done.
    "fashion": Recipe(
        source="fashion_mnist",
        stem="small",
        width_multiplier=0.5,
        image_size=28,
        flip=True,
        shift=0.07,
        epochs=5,
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
    )


def schedule(recipe: Recipe, steps_per_epoch: int) -> "keras.optimizers.schedules.LearningRateSchedule":
    """Linear warm-up, then half a cosine down to zero at the last step."""
    import keras

    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    total = recipe.epochs * steps_per_epoch
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else recipe.learning_rate,
        decay_steps=max(1, total - warmup),
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def optimizer(recipe: Recipe, model: "keras.Model", steps_per_epoch: int) -> "keras.optimizers.Optimizer":
    """SGD with Nesterov momentum; biases and normalisation parameters do not decay."""
    import keras

    sgd = keras.optimizers.SGD(
        schedule(recipe, steps_per_epoch),
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay or None,
    )
    if recipe.weight_decay:
        sgd.exclude_from_weight_decay([v for v in model.trainable_variables if v.name != "kernel"])
    return sgd

"""Named recipes, and recipes in files. Every value has its reason or source beside it."""

import dataclasses
import difflib
import json
import os
import zipfile
from pathlib import Path

from inception_v1.spec import VARIANTS, BatchNorm
from training.errors import UserError
from training.recipe import Recipe

FINE_TUNE = "fine-tune"  # the preset that --weights chooses
LRN_FINE_TUNE_RATE = 0.003  # its learning rate for families without batch normalization: 10 points above 0.01
PRESETS = {
    # 1,437 images of 8x8 pixels, enlarged to 32: 99.7-100 % test top-1 in 72 s on 2 cores (docs/guide/first_run.md).
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
    # 60,000 images of 28x28 pixels: 94.8, 94.6 % test top-1 (seeds 0, 1) in 43 min. (docs/results/accuracy.md).
    "fashion": Recipe(
        source="fashion_mnist",
        validation_fraction=0.05,  # 3,000 images distinguish the epochs
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
    # ImageNet with what was learned since. Not run: no ImageNet where it was written.
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
    # The network of the pruning literature on CIFAR-10, by the schedule of kuangliu/pytorch-cifar. Not run: no CIFAR-10
    # where it was written. HRank, EPruner and others report 95.03-95.05 % top-1 before they slim it.
    "cifar": Recipe(
        source="cifar10",
        validation_fraction=0.04,  # 2,000 images
        variant="cifar",
        stem="cifar",
        aux=False,
        image_size=32,
        shift=0.125,  # four pixels, as a crop of the image padded by four
        flip=True,
        epochs=200,
        batch_size=128,
        base_batch_size=128,
        learning_rate=0.1,
        warmup_epochs=0,
        nesterov=False,
        weight_decay=5e-3,  # 5e-4 in the gradient, of which a momentum of 0.9 makes ten times that
    ),
    # A trained network (--weights) on few images. Top-1 by seed on parts of 7 photographs, with 20 other parts of each
    # for training, after training on 11 other photographs: slim 92, 88, 95 %, by the preset `digits` 53, 49 %;
    # batchnorm 94, 89, 91 %, by `digits` 91, 92, 93 %; paper 71, 74 %, by `digits` 30, 40 %.
    FINE_TUNE: Recipe(
        freeze_batch_norm=True,  # with slim's momentum of 0.9997 trained statistics reach 73 % at best, these 95 %
        epochs=30,
        batch_size=8,  # 24 images still make 90 steps
        base_batch_size=8,
        learning_rate=0.01,  # batchnorm: 0.003 ends 5 points lower; at 0.1 frozen statistics end in NaN
        warmup_epochs=3,
    ),
}


def preset(name: str) -> Recipe:
    """The preset of that name, or the recipe in a JSON file.

    Raises:
        UserError: neither; or the file is no recipe.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name.endswith(".json"):
        return read_recipe(name)
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"Expected recipe to be one of {', '.join(map(repr, PRESETS))} or a .json file; "
        f"Received: recipe={name!r}.{hint}"
    )


def preset_for_source(source: str) -> Recipe:
    """The preset made for a source, or the defaults with the paper's augmentation."""
    made = [recipe for recipe in PRESETS.values() if recipe.source == source]
    return made[0] if made else Recipe(source=source, paper_augment=True)


def preset_for_weights(path: str | os.PathLike[str]) -> Recipe:
    """The preset for fine-tuning at the image size, and the learning rate of the family, of the network in a `.keras`
    file; the preset as it is where there is no such file, which is reported once it is read as a whole."""
    recipe = PRESETS[FINE_TUNE]
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        family, size = VARIANTS[config["variant"]], config["input_shape"][0]
    except (OSError, zipfile.BadZipFile, LookupError, TypeError, ValueError):
        return recipe
    if not isinstance(family.norm, BatchNorm):
        recipe = dataclasses.replace(recipe, learning_rate=LRN_FINE_TUNE_RATE, freeze_batch_norm=False)
    return dataclasses.replace(recipe, image_size=size) if isinstance(size, int) else recipe


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a JSON file.

    Raises:
        UserError: the file cannot be read, or has another set of fields.
    """
    try:
        fields = json.loads(Path(path).read_text("utf-8"))
        return Recipe(**fields)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"Expected a recipe in {str(path)!r}; Received: {error}.") from error

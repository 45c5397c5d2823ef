"""What a recipe comes to: source, splits and network, checked before anything is trained."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from inception_v1 import GoogLeNet, Spec
from training import transfer
from training.data.pipeline import Batches, Position, Shard
from training.data.scan import (
    Scan,
    describe_duplicates,
    describe_rare_classes,
    find_duplicates,
    scan,
    without_unreadable,
)
from training.data.sources import Splits
from training.data.split import Split
from training.distillation import Distillation, DistillationLoss, Distillations, SelfDistillation, Teacher
from training.errors import UserError
from training.recipe import Recipe, with_global_batch
from training.run_folder import IMAGES, STRUCTURE, RunFolder
from training.run_images import choose_splits, describe_dataset, write_images
from training.trained_network import read_trained

log = logging.getLogger(__name__)


class Task(Protocol):
    """What `train.fit` trains."""

    @property
    def recipe(self) -> Recipe:
        """How to train; its batch size is that of each replica."""

    @property
    def spec(self) -> Spec:
        """The network."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    @property
    def pretrained(self) -> GoogLeNet | None:
        """The network that it starts from, or None."""

    @property
    def keeps_classifiers(self) -> bool:
        """Whether it starts with the classifiers of `pretrained` too, since the classes are the same."""

    @property
    def teacher(self) -> Distillation | None:
        """What the network learns beside the labels, or None."""

    def training(self, replicas: int, start: Position, shard: Shard, service: str | None) -> tf.data.Dataset:
        """Batches to train on, of a shard of steps that so many replicas share; see `Batches.training`."""

    def validation(self, replicas: int, shard: Shard) -> tf.data.Dataset:
        """Batches that choose the best epoch, each for so many replicas; see `Batches.evaluation`."""


@dataclasses.dataclass(frozen=True)
class RecipeTask:
    """The `Task` of a recipe.

    Attributes:
        recipe: as asked for, with what a trained network decides.
        steps: batches in an epoch.
        spec: the network.
        pretrained: the network that it starts from, or None.
        splits: of the source, without unreadable images.
        scans: what was found in each of them, by field of `splits`.
        keeps_classifiers: whether it starts with the classifiers of `pretrained` too.
        teacher: what it learns beside the labels, or None.
    """

    recipe: Recipe
    steps: int
    spec: Spec
    pretrained: GoogLeNet | None
    splits: Splits
    scans: Mapping[str, Scan]
    keeps_classifiers: bool = False
    teacher: Distillation | None = None

    @property
    def classes(self) -> list[str]:
        """Names in label order."""
        return self.splits.train.classes

    @property
    def test(self) -> Batches:
        """Batches of the test split, which only the final metrics see."""
        return Batches(self.splits.test, self.recipe)

    def training(self, replicas: int, start: Position, shard: Shard, service: str | None) -> tf.data.Dataset:
        recipe = with_global_batch(self.recipe, replicas)
        return Batches(self.splits.train, recipe).training(start, shard, service)

    def validation(self, replicas: int, shard: Shard) -> tf.data.Dataset:
        return Batches(self.splits.validation, with_global_batch(self.recipe, replicas)).evaluation(shard)

    @functools.cached_property
    def duplicates(self) -> list[dict[str, list[str]]]:
        """Images that are in more than one split; see `find_duplicates`."""
        return find_duplicates(self.scans)

    def warnings(self) -> list[str]:
        """What makes the numbers of a run on these images doubtful, each in a clause."""
        return describe_rare_classes(self.scans["train"], self.classes) + describe_duplicates(self.duplicates)

    def describe_images(self) -> dict[str, Any]:
        """What `metrics.json` holds about the images."""
        return {
            "dataset": describe_dataset(self.splits, self.scans),
            "splits": self.splits.names(),
            "unreadable": self.splits.skipped(),
            "duplicates": self.duplicates,
            "data_warnings": self.warnings(),
        }

    def create(self, run: RunFolder) -> None:
        """Makes or empties a run's folder and writes what is known before training."""
        run.create(self.recipe, self.spec, self.classes)
        write_images(run / IMAGES, self.splits, self.scans)


def complete_recipe(recipe: Recipe, spec: Spec | None = None) -> tuple[Recipe, GoogLeNet | None]:
    """The recipe with what a network decides, `spec` or the trained one that it starts from; and the trained one."""
    pretrained = transfer.read_network(recipe.weights) if recipe.weights else None
    own = pretrained.spec if pretrained else spec
    if own is None:
        return recipe, None
    fields = {name: getattr(own, name) for name in ("variant", "stem", "width_multiplier", "pixels")}
    if spec:
        fields |= {"aux": spec.has_aux, "dropout": spec.dropout[0], "aux_dropout": spec.dropout[1]}
    return dataclasses.replace(recipe, **fields), pretrained


def prepare_task(
    recipe: Recipe,
    pretrained: GoogLeNet | None,
    replicas: int,
    structure: Spec | None = None,
    splits: Splits | None = None,
) -> RecipeTask:
    """Loads the source of a recipe and checks all that can be checked before a network is built.

    Args:
        recipe: completed.
        pretrained: the network that it starts from, or None.
        replicas: that share a step.
        structure: a network whose widths replace those of the recipe.
        splits: to train on; None for those that the recipe asks for.

    Raises:
        UserError: as `train.train`.
    """
    splits = splits or choose_splits(recipe)
    spec = network_for(recipe, splits.train, structure)
    if pretrained:
        transfer.check_fits(pretrained.spec, spec, recipe.freeze_until)
    scans = scan(splits)
    splits = Splits(*(without_unreadable(*each, recipe.unreadable) for each in zip(splits, scans, strict=True)))
    steps = Batches(splits.train, with_global_batch(recipe, replicas)).steps_per_epoch(replicas)
    scanned = dict(zip(Splits._fields, scans, strict=True))
    task = RecipeTask(recipe, steps, spec, pretrained, splits, scanned, teacher=recipe_distillation(recipe, spec))
    for warning in task.warnings():
        log.warning("%s", warning)
    return task


def network_for(recipe: Recipe, split: Split, structure: Spec | None = None) -> Spec:
    """The network of a recipe for the images and classes of a split; with the widths of `structure` if there is one."""
    spec = recipe_spec(recipe, split.channels, len(split.classes))
    own = {name: getattr(structure, name) for name in STRUCTURE} if structure else {}
    return transfer.with_arguments(spec, class_names=split.classes, **own)


def recipe_spec(recipe: Recipe, channels: int, classes: int) -> Spec:
    """The network that a recipe trains on images of so many channels and classes."""
    return Spec(
        recipe.variant,
        input_shape=(recipe.image_size, recipe.image_size, channels),
        classes=classes,
        aux=recipe.aux,
        stem=recipe.stem,
        width_multiplier=recipe.width_multiplier,
        dropout=(recipe.dropout, recipe.aux_dropout),
        pixels=recipe.pixels,
    )


def recipe_distillation(recipe: Recipe, spec: Spec) -> Distillation | None:
    """What a network learns beside the labels, or None.

    Args:
        recipe: with its teacher, or the weight of self-distillation, or neither.
        spec: the network that learns.

    Raises:
        UserError: no trained network there, or one of other images or classes.
    """
    losses: list[DistillationLoss] = []
    if recipe.teacher:
        model = read_trained(recipe.teacher).model
        _check_teacher(model.spec, spec)
        losses.append(Teacher(model, recipe.teacher_weight, recipe.temperature))
    if recipe.distill_heads:
        if not spec.has_aux:
            raise UserError(
                f"Expected auxiliary heads to distill; Received: distill_heads={recipe.distill_heads}, none of them."
            )
        losses.append(SelfDistillation(recipe.distill_heads, recipe.temperature))
    return Distillations(losses) if losses else None


def _check_teacher(teacher: Spec, student: Spec) -> None:
    """Raises UserError unless both take the same images, and have the same classes."""
    for name in ("input_shape", "pixels", "classes", "class_names"):
        own, other = getattr(student, name), getattr(teacher, name)
        if own != other and not (name == "class_names" and None in (own, other)):
            raise UserError(f"Expected a teacher with {name}={own!r}, as the network has; Received: {other!r}.")
    if not teacher.include_top:
        raise UserError("Expected a teacher with a main head; Received: one built with include_top=False.")

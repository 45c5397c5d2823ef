"""Distillation: a network learns from probabilities, of another network or of its own main head, beside the labels."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
from keras import ops

from inception_v1 import GoogLeNet, Spec


class Distillation(Protocol):
    """What a network learns beside the labels."""

    def student(self, spec: Spec, weights: Mapping[str, Any]) -> GoogLeNet:
        """The network that learns it in `fit`, from a spec and the weights of its heads' losses."""


class DistillationLoss(Protocol):
    """A loss that needs no labels."""

    def loss(self, images: Any, logits: Mapping[str, Any], weights: Mapping[str, Any]) -> Any:
        """The loss of a batch, a scalar.

        Args:
            images: float `(batch, height, width, channels)`, normalized.
            logits: of the student, `(batch, classes)` by head; a constant may be missing from each row.
            weights: of the heads.
        """


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network whose probabilities another one learns (Hinton et al. 2015, arXiv 1503.02531).

    The loss of each head is `keras.distillation.LogitsDistillation`: the Kullback-Leibler divergence of the teacher's
    softened probabilities from the student's, times the square of the temperature. `keras.distillation.Distiller`
    around it does not fit three heads that learn from one label: it is another model, without this network's fan-out of
    the label, its losses and metrics by head, and what the callbacks of a run save.

    Attributes:
        model: the network, with the student's classes. A head that it does not have learns from its main head.
        weight: of this loss beside the cross-entropy, for each head.
        temperature: by which logits are divided before the softmax.
    """

    model: GoogLeNet
    weight: float = 1.0
    temperature: float = 2.0

    def loss(self, images: Any, logits: Mapping[str, Any], weights: Mapping[str, Any]) -> Any:
        taught, term = to_logits(self.model.spec, self.model(images, training=False)), _divergence(self.temperature)
        by_head = [
            weights[head] * term.compute_loss(ops.stop_gradient(taught.get(head, taught["main"])), own)
            for head, own in logits.items()
        ]
        return self.weight * sum(by_head)


@dataclasses.dataclass(frozen=True)
class SelfDistillation:
    """The auxiliary heads learn the probabilities of the main head (Zhang et al. 2019, arXiv 1905.08094).

    Of the paper's two losses beside the cross-entropy it is the divergence of probabilities. The other one, the
    distance of each head's feature maps from the deepest ones, is left out: those of GoogLeNet's heads have other
    shapes.

    Attributes:
        weight: of this loss beside the cross-entropy, for each auxiliary head.
        temperature: by which logits are divided before the softmax.
    """

    weight: float = 1.0
    temperature: float = 2.0

    def loss(self, images: Any, logits: Mapping[str, Any], weights: Mapping[str, Any]) -> Any:
        term, taught = _divergence(self.temperature), ops.stop_gradient(logits["main"])
        by_head = [weights[head] * term.compute_loss(taught, own) for head, own in logits.items() if head != "main"]
        return self.weight * sum(by_head)


@dataclasses.dataclass(frozen=True)
class Distillations:
    """Several losses without labels, whose sum a network learns.

    Attributes:
        losses: at least one.
    """

    losses: Sequence[DistillationLoss]

    def student(self, spec: Spec, weights: Mapping[str, Any]) -> "Student":
        """A network that learns them; see `Student`."""
        return Student(spec, self.losses, weights)


class Student(GoogLeNet):
    """A network that learns distillation losses in `fit`. Its weights are saved by those of a `GoogLeNet` like it.

    Args:
        spec: the network.
        losses: are no part of the model, so that neither a teacher's weights nor its state count as this one's.
        weights: of the heads' losses.
    """

    def __init__(self, spec: Spec, losses: Sequence[DistillationLoss], weights: Mapping[str, Any]) -> None:
        super().__init__(**spec.to_dict())
        self._distillation = [functools.partial(each.loss, weights=weights) for each in losses]

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if x is None:  # `create_training_variables`, which has no images
            return loss
        logits = to_logits(self.spec, y_pred)
        return loss + sum(distillation(x, logits) for distillation in self._distillation)


def _divergence(temperature: float) -> keras.distillation.LogitsDistillation:
    # An instance: of the name "kl_divergence" Keras 3.15 makes a function, which it then applies to logits.
    return keras.distillation.LogitsDistillation(temperature, keras.losses.KLDivergence())


def to_logits(spec: Spec, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Logits, but for a constant, of heads that return them or probabilities."""
    if spec.classifier_activation is None:
        return dict(outputs)
    return {head: ops.log(ops.maximum(output, keras.config.epsilon())) for head, output in outputs.items()}

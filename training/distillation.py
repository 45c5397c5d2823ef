"""Distillation: a network learns from the probabilities of another one as well as from the labels."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol

import keras
from keras import ops

from inception_v1 import GoogLeNet, Spec


class Distillation(Protocol):
    """What a network learns beside the labels."""

    def student(self, spec: Spec, weights: Mapping[str, Any]) -> GoogLeNet:
        """The network that learns it in `fit`, from a spec and the weights of its heads' losses."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network whose probabilities another one learns (Hinton et al. 2015, arXiv 1503.02531).

    The loss of each head is `keras.distillation.LogitsDistillation`: the Kullback-Leibler divergence of the teacher's
    softened probabilities from the student's, times the square of the temperature. `keras.distillation.Distiller`
    around it does not fit three heads that learn from one label: it is another model, without this network's fan-out of
    the label, its losses and metrics by head, and what the callbacks of a run save.

    Attributes:
        model: the network, with (at least) the student's heads and classes.
        weight: of this loss beside the cross-entropy, for each head.
        temperature: by which logits are divided before the softmax.
    """

    model: GoogLeNet
    weight: float = 1.0
    temperature: float = 2.0

    def student(self, spec: Spec, weights: Mapping[str, Any]) -> "Student":
        """A network that learns from this one; see `Student`."""
        return Student(spec, self, weights)

    def loss(self, images: Any, predictions: Mapping[str, Any], weights: Mapping[str, Any]) -> Any:
        """The loss of a batch, a scalar.

        Args:
            images: float `(batch, height, width, channels)`, normalized.
            predictions: the student's output by head.
            weights: of the heads.
        """
        # An instance: of the name "kl_divergence" Keras 3.15 makes a function, which it then applies to logits.
        term = keras.distillation.LogitsDistillation(self.temperature, keras.losses.KLDivergence())
        taught = self.model(images, training=False)
        by_head = [
            weights[head] * term.compute_loss(ops.stop_gradient(self._logits(taught[head])), self._logits(output))
            for head, output in predictions.items()
        ]
        return self.weight * sum(by_head)

    def _logits(self, output: Any) -> Any:
        """Logits, but for a constant, of a head that returns them or probabilities."""
        if self.model.spec.classifier_activation is None:
            return output
        return ops.log(ops.maximum(output, keras.config.epsilon()))


class Student(GoogLeNet):
    """A network that learns from a teacher in `fit`. Its weights are saved by those of a `GoogLeNet` like it.

    Args:
        spec: the network.
        teacher: is no part of the model, so that neither its weights nor its state count as this one's.
        weights: of the heads' losses.
    """

    def __init__(self, spec: Spec, teacher: Teacher, weights: Mapping[str, Any]) -> None:
        super().__init__(**spec.to_dict())
        self._distillation = functools.partial(teacher.loss, weights=weights)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if x is None:  # `create_training_variables`, which has no images
            return loss
        return loss + self._distillation(x, y_pred)

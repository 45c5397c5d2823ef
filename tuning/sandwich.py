"""The sandwich rule: each step of the widest network trains slices of it too, which learn from its probabilities.

Sources: Yu and Huang 2019, "Universally slimmable networks" (arXiv 1903.05134): the widest, the narrowest and random
widths in each step, the narrower ones with the probabilities of the widest as labels (in-place distillation). Yu et
al. 2020, "BigNAS" (arXiv 2003.11142): only the widest has dropout and learns from labels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet, Spec
from tuning.sliced_network import SlicedNetwork
from tuning.space import Space, Values

MOST_ROWS = 20_000  # different random samples; a longer training begins with them again


@dataclasses.dataclass(frozen=True, eq=False)
class Sandwich:
    """What the widest network of a space learns beside the labels: to be every network of it.

    Attributes:
        narrowest: its widths, int32 `(convolutions,)`.
        samples: widths of random networks of the space, int32 `(rows, convolutions)`. Each step takes the next ones.
        count: of random networks in a step.
    """

    narrowest: np.ndarray
    samples: np.ndarray
    count: int

    def student(self, spec: Spec, weights: Mapping[str, Any]) -> "SandwichNetwork":
        """The widest network, as `fit` trains it."""
        return SandwichNetwork(spec, self, weights)


class SandwichNetwork(GoogLeNet):
    """The widest network of a space. Its weights are saved by those of a `GoogLeNet` like it.

    The statistics of batch normalization that it keeps are those of the widest network alone.

    Args:
        spec: of the widest network.
        sandwich: which slices a step trains.
        weights: of the heads' losses.
    """

    def __init__(self, spec: Spec, sandwich: Sandwich, weights: Mapping[str, Any]) -> None:
        super().__init__(**spec.to_dict())
        self.supports_jit = False  # XLA would compile each new set of widths
        self._sandwich, self._head_weights, self._slices = sandwich, weights, SlicedNetwork(self)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if x is None or not training:  # `create_training_variables` has no images
            return loss
        return loss + tf.add_n([self._loss_of(widths, x, y_pred) for widths in self._step_widths()])

    def _step_widths(self) -> list[Any]:
        """Widths of the narrowest network and of random ones, which follow from the number of the step alone."""
        step = tf.cast(self.optimizer.iterations, "int64")
        table, count = tf.constant(self._sandwich.samples), self._sandwich.count
        rows = [table[(step * count + place) % len(self._sandwich.samples)] for place in range(count)]
        return [tf.constant(self._sandwich.narrowest), *rows]

    def _loss_of(self, widths: Any, images: Any, predictions: Mapping[str, Any]) -> Any:
        """Cross-entropy of a slice with the probabilities of the widest network."""
        logits, _ = self._slices(images, widths)
        losses = []
        for head, output in predictions.items():
            taught = tf.nn.softmax(output) if self.spec.classifier_activation is None else output
            loss = tf.nn.softmax_cross_entropy_with_logits(tf.stop_gradient(taught), logits[head])
            losses.append(self._head_weights[head] * tf.reduce_mean(loss))
        return tf.add_n(losses)


def make_sandwich(space: Space, count: int, steps: int) -> Sandwich:
    """The sandwich of a space.

    Args:
        space: whose networks are trained; the random ones keep its budget.
        count: of random networks in a step.
        steps: of the training.
    """
    drawn = space.sample(max(1, min(count * steps, MOST_ROWS)), space.recipe.seed) or [space.default()]
    columns = {name: np.array([values[name] for values in drawn]) for name in drawn[0]}
    samples = np.stack(np.broadcast_arrays(*space.widths(columns).values()), axis=1)
    return Sandwich(vector(space, space.extremes()[0]), samples.astype("int32"), count)


def widest(space: Space) -> Spec:
    """The network that has every network of the space as a slice."""
    return space.network(space.extremes()[1])


def vector(space: Space, values: Values) -> np.ndarray:
    """The widths of a sample as `SlicedNetwork` takes them: int32 `(convolutions,)`."""
    return np.array(list(space.widths(values).values()), "int32")

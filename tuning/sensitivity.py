"""What a network loses with channels: the loss with each branch narrower, and the accuracy under smaller budgets."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from inception_v1 import GoogLeNet, Spec
from inception_v1.slimming import masked_weights
from training.evaluation.predictor import Predictor, sum_scores
from tuning.allocation import LEVELS, Widths, branches
from tuning.criteria import Scores, best_channels
from tuning.training_examples import Examples

BATCH = 64
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]  # as `training.report.progress.track_count`


class Measured(NamedTuple):
    """What a network reaches on examples.

    Attributes:
        loss: cross-entropy of the main head, nats.
        top1: accuracy of the main head, a fraction.
    """

    loss: float
    top1: float


class MaskedNetwork:
    """A copy of a network, for its main head alone, whose channels can be at zero.

    Batch normalization takes the statistics of each batch. With those of the whole network a layer whose inputs lost
    channels is off its scale, which hides what the channels are worth: a step of fine-tuning corrects it.

    Args:
        model: the network; it stays as it is.
        scores: of its channels, by which those to keep are chosen.
        examples: to measure on.
    """

    def __init__(self, model: GoogLeNet, scores: Scores, examples: Examples) -> None:
        self._model = GoogLeNet(**{**model.spec.to_dict(), "aux": False, "dropout": (0.0, 0.0)})
        for layer in self._model.layers:
            layer.set_weights(model.get_layer(layer.name).get_weights())
        self._scores, self._examples = scores, examples
        self._predictor = Predictor(self._model, training=True)

    def measure(self, widths: Widths) -> Measured:
        """Loss and accuracy with so many of the best channels in these convolutions, and all in the others."""
        with self._masked(widths):
            self._predictor.refresh()
            ((top1, _, loss, count),) = sum_scores(self._predictor(self._batches()), 1)
        return Measured(loss / count, top1 / count)

    @contextlib.contextmanager
    def _masked(self, widths: Widths) -> Iterator[None]:
        masks = masked_weights(self._model, best_channels(self._scores, widths))
        before = {name: self._model.get_layer(name).get_weights() for name in masks}
        for name, weights in masks.items():
            self._model.get_layer(name).set_weights(weights)
        try:
            yield
        finally:
            for name, weights in before.items():
                self._model.get_layer(name).set_weights(weights)

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        parts = max(1, round(len(self._examples.labels) / BATCH))
        return zip(*(np.array_split(array, parts) for array in self._examples), strict=True)


def sensitivity(network: MaskedNetwork, spec: Spec, multiple: int, track: Track) -> dict[str, list[float]]:
    """Rise of the loss, in nats, by branch, with the fractions `allocation.LEVELS` of its channels and all others.

    Args:
        network: to measure.
        spec: of the network.
        multiple: of the numbers of channels; see `allocation.kept_width`.
        track: shows progress over the branches.
    """
    groups, whole = branches(spec), network.measure({})
    return {
        branch.name: [network.measure(branch.at(level, multiple)).loss - whole.loss for level in LEVELS]
        for branch in track(groups, len(groups), "measuring branches")
    }

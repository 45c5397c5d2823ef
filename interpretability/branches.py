"""What each branch of each Inception block contributes to a logit: activation x gradient, and zero ablation.

With a gate of one on a branch (see `gates`), the derivative of the logit by the gate is the sum of the branch's
activations times their gradients, and the fall of the logit when the gate is shut is the branch's ablation. The first
is the first-order estimate of the second. Sources: Molchanov et al. 2017 (the estimate, for pruning), Michel et al.
2019 (gates, on the heads of attention).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from inception_v1 import GoogLeNet
from interpretability import gradients
from interpretability.gates import gated, gates_with_one_shut, open_gates
from interpretability.network import check_head, checked_classes, fixed_size, network_inputs

BATCH = 16  # images at a time, whose feature maps are in memory


class BranchContributions(NamedTuple):
    """What `branch_contributions` returns. Branches are in the order of `spec.BRANCHES`: 1x1, 3x3, 5x5, pool.

    Attributes:
        blocks: names of the blocks, in order.
        values: float32 `(images, blocks, 4)`, logits: activation x gradient summed over each branch's output. A block's
            four add up to the sum over its whole output.
        ablation: float32 `(images, blocks, 4)`, logits: how far the logit falls when a branch's output is zero; None
            unless asked for.
        classes: int64 `(images,)`, the classes explained.
        logits: float32 `(images,)`, theirs.
    """

    blocks: tuple[str, ...]
    values: np.ndarray
    ablation: np.ndarray | None
    classes: np.ndarray
    logits: np.ndarray

    def shares(self) -> np.ndarray:
        """`values` as shares of their block, see `shares`."""
        return shares(self.values)


def branch_contributions(
    model: GoogLeNet,
    images: np.ndarray,
    classes: Sequence[int] | None = None,
    head: str = "main",
    ablation: bool = False,
) -> BranchContributions:
    """How much each branch of each block contributes to the logit of a class.

    Args:
        model: the network; it stays as it is.
        images: `(images, height, width, channels)` on the 0-255 scale.
        classes: one for each image; None for the head's best.
        head: "main", "aux1" or "aux2"; of an auxiliary head the blocks before it are explained.
        ablation: whether to set each branch's output to zero too, which takes a forward pass for each branch and image.
            A network never saw such feature maps, so the falls of a block's branches need not add up.

    Raises:
        UserError: a head that is not there, images or classes that do not fit the network, or Keras on another backend
            than TensorFlow and JAX.
    """
    return BranchExplainer(model, head)(images, classes, ablation)


class BranchExplainer:
    """`branch_contributions` for several calls, compiled once.

    Args:
        model: the network.
        head: its name.

    Attributes:
        blocks: names of the blocks that the head sees, in order.

    Raises:
        UserError: a head that is not there, or Keras on another backend than TensorFlow and JAX.
    """

    def __init__(self, model: GoogLeNet, head: str = "main") -> None:
        gradients.check_backend()
        check_head(model, head)
        network = gated(model, head)
        self.blocks, self._spec = network.blocks, model.spec
        self._size = fixed_size(model, [f"{head}_logits"])
        self._logits = gradients.inference(network.model)
        self._gradient = gradients.value_and_gradient(self._sum_of_logits, network.model, any_shape=True)

    def __call__(
        self, images: np.ndarray, classes: Sequence[int] | None = None, ablation: bool = False
    ) -> BranchContributions:
        """As `branch_contributions`."""
        inputs = network_inputs(self._spec, images, self._size)
        logits = None if classes is not None else self._logits_of(inputs, open_gates(len(self.blocks)))
        chosen = checked_classes(self._spec, len(inputs), classes, logits)
        values, found = [], []
        for x, numbers in zip(_parts(inputs), _parts(chosen.astype("int32")), strict=True):
            _, part, (gradient,) = self._gradient([_repeated(open_gates(len(self.blocks)), len(x))], x, numbers)
            values.append(np.asarray(gradient))
            found.append(np.asarray(part))
        falls = np.stack([one[..., number] for one, number in zip(self.falls(images), chosen)]) if ablation else None
        return BranchContributions(self.blocks, np.concatenate(values), falls, chosen, np.concatenate(found))

    def falls(self, images: np.ndarray) -> np.ndarray:
        """How far the logit of each class falls when a branch's output is zero.

        Args:
            images: `(images, height, width, channels)` on the 0-255 scale.

        Returns:
            float32 `(images, blocks, 4, classes)`.
        """
        inputs = network_inputs(self._spec, images, self._size)
        before, gates = self._logits_of(inputs, open_gates(len(self.blocks))), gates_with_one_shut(len(self.blocks))
        after = np.stack([self._logits_of(inputs, gate) for gate in gates], axis=1)
        return (before[:, None] - after).reshape(len(inputs), *gates.shape[1:], -1)

    def _logits_of(self, inputs: np.ndarray, gates: np.ndarray) -> np.ndarray:
        """Logits `(images, classes)` with the same gates for all images."""
        return np.concatenate([self._logits([part, _repeated(gates, len(part))]) for part in _parts(inputs)])

    def _sum_of_logits(self, network: gradients.Network, arrays: Sequence[Any], inputs: Any, classes: Any) -> Any:
        """The sum of the chosen logits, and these."""
        size = self._size or ops.shape(inputs)[1:3]
        inputs = ops.reshape(inputs, (-1, *size, self._spec.input_shape[2]))  # TensorFlow forgot the channels
        logits = ops.take_along_axis(network([inputs, arrays[0]]), classes[:, None], axis=1)[:, 0]
        return ops.sum(logits), logits


def shares(values: np.ndarray) -> np.ndarray:
    """Contributions `(..., blocks, 4)` over the sum of their block's absolute ones, -1 to 1; zero where all are."""
    total = np.abs(values).sum(axis=-1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def _parts(array: np.ndarray) -> list[np.ndarray]:
    return [array[start : start + BATCH] for start in range(0, len(array), BATCH)]


def _repeated(gates: np.ndarray, images: int) -> np.ndarray:
    return np.repeat(gates[None], images, axis=0)

"""Removing channels of a network: a narrower network with the weights that stay.

A channel that is removed takes with it a filter of its convolution, an entry of the bias and the batch normalization
there, and the rows of the kernels that read it: of the next layers, behind concatenations and pools, and of the heads.
The auxiliary heads' own hidden layers stay as they are, since the heads are dropped at inference.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from inception_v1.dependencies import channels, narrower, sources
from inception_v1.errors import UserError
from inception_v1.model import GoogLeNet
from inception_v1.spec import Spec

Kept = Mapping[str, Sequence[int] | np.ndarray]  # name of a convolution to the channels that stay


def remove_channels(model: GoogLeNet, kept: Kept) -> GoogLeNet:
    """A narrower network, with the weights of the channels that stay.

    It computes what `model` does with the other channels at zero (see `masked_weights`), but for local response
    normalization: there a channel that stays gets other neighbors.

    Args:
        model: the network; it stays as it is.
        kept: convolutions of the body to the indices of their output channels that stay, ascending. Convolutions that
            are not named keep all.

    Returns:
        A `GoogLeNet`, not compiled, with explicit `widths` and `stem_widths`.

    Raises:
        UserError: an unknown convolution, indices that are none of its channels, not ascending or none at all, or
            different numbers of them in the two convolutions of a double "5x5" branch.
    """
    stays = _complete(model.spec, kept)
    slim = GoogLeNet(**narrower(model.spec, {name: len(rows) for name, rows in stays.items()}).to_dict())
    reads, own = sources(model.spec), channels(model.spec)
    for layer in slim.layers:
        if not layer.weights:
            continue
        weights = model.get_layer(layer.name).get_weights()
        if reads.get(layer.name):
            rows = _joined([own[name] for name in reads[layer.name]], [stays[name] for name in reads[layer.name]])
            weights[0] = weights[0][..., rows, :]
        if (name := layer.name.removesuffix("_bn")) in stays:
            weights = [array[..., stays[name]] for array in weights]
        layer.set_weights(weights)
    return slim


def masked_weights(model: GoogLeNet, kept: Kept) -> dict[str, list[np.ndarray]]:
    """Weights with which the other channels of these convolutions are zero at inference.

    Args:
        model: the network; it stays as it is.
        kept: as of `remove_channels`.

    Returns:
        The layers that differ, each with what its `set_weights` takes.

    Raises:
        UserError: as `remove_channels`.
    """
    stays = {name: rows for name, rows in _complete(model.spec, kept).items() if name in kept}
    found = {}
    for layer in model.layers:
        if layer.weights and (name := layer.name.removesuffix("_bn")) in stays:
            weights = layer.get_weights()
            removed = np.setdiff1d(np.arange(weights[0].shape[-1]), stays[name])
            for variable, array in zip(layer.weights, weights, strict=True):
                if variable.name != "moving_variance":
                    array[..., removed] = 0
            found[layer.name] = weights
    return found


def _joined(widths: Sequence[int], kept: Sequence[np.ndarray]) -> np.ndarray:
    """The kept channels of a concatenation of feature maps that had so many each."""
    offsets = np.cumsum([0, *widths[:-1]])
    return np.concatenate([offset + rows for offset, rows in zip(offsets, kept, strict=True)])


def _complete(spec: Spec, kept: Kept) -> dict[str, np.ndarray]:
    """The channels that stay in every convolution, checked."""
    own = channels(spec)
    if unknown := kept.keys() - own.keys():
        raise UserError(f"Expected convolutions of the body; Received: {', '.join(sorted(unknown))}.")
    stays = {name: np.asarray(kept.get(name, np.arange(width))) for name, width in own.items()}
    for name, rows in stays.items():
        integers = rows.ndim == 1 and rows.size and np.issubdtype(rows.dtype, np.integer)
        if not (integers and rows[0] >= 0 and rows[-1] < own[name] and (np.diff(rows) > 0).all()):
            raise UserError(
                f"Expected ascending indices of the {own[name]} channels of {name}, at least one; "
                f"Received: {str(kept[name])[:60]}."
            )
        last = name.replace("_5x5_first", "_5x5")
        if len(stays[last]) != len(rows):
            raise UserError(
                f"Expected as many channels in {name} as in {last}; Received: {len(rows)} and {len(stays[last])}."
            )
    return stays

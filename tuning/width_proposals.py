"""Widths of the branches from the correlations between a trained network's channels, the idea behind Inception.

Arora et al. (arXiv 1310.6343) build a layer from clusters of units that are active together. In images most of them lie
at one position and are covered by 1x1 convolutions; those that are spread out need 3x3 and 5x5 (arXiv 1409.4842,
section 4).
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from inception_v1 import GoogLeNet
from inception_v1.cost import classifier_cost
from inception_v1.spec import Inception, Spec, Widths
from training.errors import UserError
from training.run_folder import RunFolder
from training.run_images import load_splits
from tuning.correlations import ChannelCorrelations, Clusters, cluster_channels
from tuning.slim_settings import FEWEST_IMAGES
from tuning.training_examples import training_examples

IMAGES, THRESHOLD = 256, 0.7
BATCH = 32
FACTORS = np.geomspace(2.0**-14, 2.0**14, 8192)  # channels for each cluster; at the first every width is 8


class BlockClusters(NamedTuple):
    """What was found at the input of a block.

    Attributes:
        correlations: of its channels.
        clusters: of them.
    """

    correlations: ChannelCorrelations
    clusters: Clusters


@dataclasses.dataclass(frozen=True)
class CorrelatedWidths:
    """Proposed widths, and what they follow from.

    Attributes:
        spec: the network with the proposed widths.
        macs: its multiply-accumulates at inference.
        budget: those that it may have.
        blocks: of every block, from the image on.
    """

    spec: Spec
    macs: int
    budget: int
    blocks: Mapping[str, BlockClusters]


def correlated_widths(
    run: str | os.PathLike[str],
    *,
    keep_macs: float | None = None,
    max_macs: float | None = None,
    images: int = IMAGES,
    threshold: float = THRESHOLD,
) -> CorrelatedWidths:
    """Proposes widths for a run's network from its activations on training images.

    Args:
        run: folder of a trained run.
        keep_macs: budget, as a fraction of the network's multiply-accumulates at inference; None for all of them.
        max_macs: the budget as a number, in place of `keep_macs`.
        images: how many training images to measure on, at least 32.
        threshold: mean correlation above which channels form a cluster, 0-1 (both excluded).

    Raises:
        UserError: an argument out of range, a run without weights, a budget below the smallest network (which is
            named), or too few training images.
    """
    if not 0 < threshold < 1 or images < FEWEST_IMAGES:
        raise UserError(
            f"Expected 0 < threshold < 1 and images >= {FEWEST_IMAGES}; Received: {threshold} and {images}."
        )
    if (keep_macs is not None and max_macs is not None) or not (keep_macs or 1) > 0 or not (max_macs or 1) > 0:
        raise UserError(f"Expected one positive budget; Received: keep_macs={keep_macs}, max_macs={max_macs}.")
    source = RunFolder(run)
    model = source.model()
    budget = int(max_macs or (1 if keep_macs is None else keep_macs) * _macs(model.spec, model.spec.block_widths()))
    check_budget(model.spec, budget)
    examples = training_examples(load_splits(source), source.recipe(), images)
    parts = (examples.images[start : start + BATCH] for start in range(0, len(examples.images), BATCH))
    return propose(model, parts, budget, threshold)


def propose(model: GoogLeNet, batches: Iterable[np.ndarray], budget: int, threshold: float) -> CorrelatedWidths:
    """Proposes widths from a network's activations.

    Args:
        model: the network.
        batches: float32 images as it takes them, `(batch, height, width, channels)`.
        budget: multiply-accumulates at inference.
        threshold: as of `correlated_widths`.

    Raises:
        UserError: a budget below the smallest network.
    """
    correlations = input_correlations(model, batches)
    blocks = {name: BlockClusters(found, cluster_channels(found, threshold)) for name, found in correlations.items()}
    counts = {block: found.clusters.counts() for block, found in blocks.items()}
    widths = widths_from_counts(model.spec, counts, budget)
    spec = Spec(**{**model.spec.to_dict(), "widths": widths})
    return CorrelatedWidths(spec, _macs(spec, widths), budget, blocks)


def input_correlations(model: GoogLeNet, batches: Iterable[np.ndarray]) -> dict[str, ChannelCorrelations]:
    """Correlations of the channels of each block's input, in one pass over images."""
    rows = model.spec.trunk()
    inputs = {
        row.name.removeprefix("inception_"): rows[number - 1].name
        for number, row in enumerate(rows)
        if isinstance(row, Inception)
    }
    network = model.features(list(dict.fromkeys(inputs.values())))
    found = {block: ChannelCorrelations() for block in inputs}
    for images in batches:
        maps = network.predict_on_batch(images)
        for block, name in inputs.items():
            found[block].update(np.asarray(maps[name], "float32"))
    return found


def widths_from_counts(spec: Spec, counts: Mapping[str, tuple[int, int, int]], budget: int) -> dict[str, Widths]:
    """The widest blocks in a budget whose 1x1, 3x3 and 5x5 convolutions are as wide as there are clusters of each kind.

    One factor holds for the whole network. Reductions keep the family's ratio to what they feed, pool projections
    theirs to the rest of the block, since clusters tell nothing about them. Every width is a multiple of 8.

    Args:
        spec: all but the widths.
        counts: of the clusters at offsets 0, 1 and 2, by block.
        budget: multiply-accumulates at inference.

    Raises:
        UserError: a budget below the smallest network.
    """
    check_budget(spec, budget)
    tables = {block: _scaled(spec.family.blocks[block], counts[block]) for block in spec.family.blocks}
    macs = np.asarray(classifier_cost(spec, tables)[1])
    best = np.flatnonzero(macs <= budget)[-1]  # the costs rise with the factor
    return {block: Widths(*(int(np.asarray(column)[best]) for column in row)) for block, row in tables.items()}


def check_budget(spec: Spec, budget: int) -> None:
    """Raises UserError for a budget that no network keeps."""
    smallest = _macs(spec, {block: Widths(*[8] * 6) for block in spec.family.blocks})
    if budget < smallest:
        raise UserError(
            f"Expected a budget of at least {smallest:,} multiply-accumulates, those of the smallest network; "
            f"Received: {budget:,}."
        )


def _scaled(own: Widths, counts: tuple[int, int, int]) -> Widths:
    """Widths of a block at each of `FACTORS`, int64 arrays."""
    conv1, conv3, conv5 = (count * FACTORS for count in counts)
    rest = conv1 + conv3 + conv5
    numbers = (
        conv1,
        conv3 * own.reduce3 / own.conv3,
        conv3,
        conv5 * own.reduce5 / own.conv5,
        conv5,
        rest * own.pool / (own.conv1 + own.conv3 + own.conv5),
    )
    return Widths(*(np.maximum(8, np.floor(column / 8 + 0.5).astype("int64") * 8) for column in numbers))


def _macs(spec: Spec, widths: Mapping[str, Widths]) -> int:
    return int(classifier_cost(spec, widths)[1])

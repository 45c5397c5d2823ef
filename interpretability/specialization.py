"""Whether branches are specialized: whether they serve some classes more than others."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from inception_v1.errors import UserError
from interpretability.branches import BranchExplainer, shares

PERMUTATIONS = 999
VALUES_AT_ONCE = 2**22  # of permuted rows
REFERENCES = 10  # images of the reference for each image of the largest class: its error is small beside the class's

Batches = Iterable[tuple[Any, Any]]


class SplitContributions(NamedTuple):
    """What `contributions_of_split` and `ablations_of_split` return.

    Attributes:
        values: float32 `(images, blocks, 4)`: contributions to the logit of each image's own class.
        labels: int64 `(images,)`.
        reference: float64 `(classes, blocks, 4)`: the mean contribution to the logit of each class over images of all
            classes; by activation x gradient NaN where a class has no image.
    """

    values: np.ndarray
    labels: np.ndarray
    reference: np.ndarray


class Specialization(NamedTuple):
    """What `specialization` returns. The gain of a branch in an image is its contribution to the logit of the image's
    class, less its contribution to the same logit in the average image; its share is that over the absolute gains of
    the block's four branches.

    Attributes:
        means: float64 `(blocks, 4, classes)`, logits: the mean contribution of a branch over the images of a class; NaN
            where there are none.
        gains: likewise, the mean gain.
        shares: likewise, the mean share, -1 to 1.
        spread: float64 `(blocks, 4)`: how much the classes differ, the standard deviation of the mean share between
            them, weighted by their images.
        p: float64 `(blocks, 4)`: p-values of "the share does not depend on the class".
        adjusted: float64 `(blocks, 4)`: the same, adjusted for so many branches (Benjamini and Hochberg 1995).
        images: int64 `(classes,)`, number of images.
    """

    means: np.ndarray
    gains: np.ndarray
    shares: np.ndarray
    spread: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    images: np.ndarray


def contributions_of_split(
    explainer: BranchExplainer,
    batches: Callable[[], Batches],
    classes: int,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> SplitContributions:
    """Contributions of the branches in a split, in two passes. Of an image only its contributions are kept, 144 bytes.

    The reference takes ten times as many images as the largest class has, or all: about ten times the first pass.

    Args:
        explainer: of the network.
        batches: returns the batches of (images on the 0-255 scale, labels), in the same order whenever it is called.
        classes: number of classes of the network.
        seed: of the choice of images for the reference.
        advance: called after each batch of a pass.
    """
    parts = []
    for images, labels in batches():
        labels = np.asarray(labels).astype("int64")
        parts.append((explainer(np.asarray(images), labels.tolist()).values, labels))
        advance()
    values, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    counts = np.bincount(labels, minlength=classes)
    count = min(len(labels), REFERENCES * int(counts.max()))
    chosen = np.isin(np.arange(len(labels)), np.random.default_rng(seed).permutation(len(labels))[:count])
    sums, start = np.full((classes, *values.shape[1:]), np.nan), 0
    sums[counts > 0] = 0
    for images, _ in batches():
        taken = np.asarray(images)[chosen[start : start + len(images)]]
        for label in np.flatnonzero(counts) if len(taken) else ():
            sums[label] += explainer(taken, [int(label)] * len(taken)).values.sum(axis=0)
        start += len(images)
        advance()
    return SplitContributions(values, labels, sums / count)


def ablations_of_split(
    explainer: BranchExplainer, batches: Batches, advance: Callable[[], None] = lambda: None
) -> SplitContributions:
    """As `contributions_of_split`, in one pass and by ablation: the contribution of a branch is how far the logit falls
    when its output is zero. The reference takes all images. A forward pass for each branch and batch.

    Args:
        explainer: of the network.
        batches: of (images on the 0-255 scale, labels).
        advance: called after each batch.
    """
    parts, sums = [], np.zeros(())
    for images, labels in batches:
        labels, falls = np.asarray(labels).astype("int64"), explainer.falls(np.asarray(images))
        parts.append((falls[np.arange(len(labels)), :, :, labels], labels))
        sums = sums + falls.sum(axis=0, dtype="float64")
        advance()
    values, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return SplitContributions(values, labels, np.moveaxis(sums / len(labels), -1, 0))


def specialization(found: SplitContributions, permutations: int = PERMUTATIONS, seed: int = 0) -> Specialization:
    """Tests for each branch whether its share of its block's gain depends on the class.

    The test is a permutation test of one-way analysis of variance: the labels are permuted, and the p-value is
    `(1 + permutations with an F at least as large) / (1 + permutations)`. Gains are tested and not contributions, since
    each logit is another function of the branches, whatever they see; and their shares, since the logits of some
    classes are larger in every branch. A branch that never gains has the p-value 1.

    Args:
        found: contributions.
        permutations: number of them. Where the images have fewer, all are made.
        seed: of the permutations.

    Raises:
        UserError: images of fewer than two classes, or no class with two images.
    """
    values, labels, reference = found
    images = np.bincount(labels, minlength=len(reference))
    check_labels(labels)
    gains = values - reference[labels]
    parts = shares(gains)
    rows = parts.reshape(len(labels), -1)
    varies = np.ptp(rows, axis=0) > 0
    p: np.ndarray = np.ones(rows.shape[1])
    if varies.any():
        groups = [rows[labels == label][:, varies] for label in np.flatnonzero(images)]
        tested = stats.permutation_test(
            groups,
            _f,
            permutation_type="independent",
            vectorized=True,
            n_resamples=permutations,
            batch=max(1, VALUES_AT_ONCE // rows.size),
            alternative="greater",
            rng=np.random.default_rng(seed),
        )
        p[varies] = tested.pvalue
    means, mean_gains, mean_shares = (_class_means(array, labels, images) for array in (values, gains, parts))
    squares = np.square(mean_shares - parts.mean(axis=0)[..., None])
    spread = np.sqrt(np.average(np.nan_to_num(squares), axis=-1, weights=images))
    adjusted = stats.false_discovery_control(p).reshape(spread.shape)
    return Specialization(means, mean_gains, mean_shares, spread, p.reshape(spread.shape), adjusted, images)


def check_labels(labels: np.ndarray) -> None:
    """Raises UserError for images of fewer than two classes, or without two images of a class."""
    counts = np.bincount(labels)
    if (counts > 0).sum() < 2 or counts.max() < 2:
        raise UserError(
            f"Expected images of two classes or more, some of the same class; Received: {len(labels)} images of "
            f"{(counts > 0).sum()} classes."
        )


def _f(*groups: np.ndarray, axis: int) -> np.ndarray:
    return stats.f_oneway(*groups, axis=axis).statistic


def _class_means(values: np.ndarray, labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Means `(blocks, 4, classes)` over the images of each class; NaN where there are none."""
    sums = np.zeros((len(images), math.prod(values.shape[1:])))
    np.add.at(sums, labels, values.reshape(len(values), -1).astype("float64"))
    means = np.divide(sums, images[:, None], out=np.full_like(sums, np.nan), where=images[:, None] > 0)
    return means.T.reshape(*values.shape[1:], len(images))

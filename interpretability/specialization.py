"""Whether branches are specialized: whether what they contribute depends on the class of the image."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from inception_v1.errors import UserError
from interpretability.branches import BranchExplainer, shares

PERMUTATIONS = 999
VALUES_AT_ONCE = 2**22  # of permuted rows


class Specialization(NamedTuple):
    """What `specialization` returns.

    Attributes:
        means: float64 `(blocks, 4, classes)`, logits: the mean contribution of a branch over the images of a class; NaN
            where there are none.
        shares: likewise, the mean share of its block.
        effect: float64 `(blocks, 4)`, 0-1: the part of the variance of a branch's share that lies between the classes
            (eta squared).
        p: float64 `(blocks, 4)`: p-values of "the share does not depend on the class".
        adjusted: float64 `(blocks, 4)`: the same, adjusted for so many branches (Benjamini and Hochberg 1995).
        images: int64 `(classes,)`, number of images.
    """

    means: np.ndarray
    shares: np.ndarray
    effect: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    images: np.ndarray


def contributions_of_split(
    explainer: BranchExplainer, batches: Iterable[tuple[Any, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions of the branches to the logit of each image's own class, of a whole split.

    Args:
        explainer: of the network.
        batches: of (images on the 0-255 scale, labels). Of an image only its contributions are kept, 144 bytes.

    Returns:
        float32 `(images, blocks, 4)`, and labels int64 `(images,)`.
    """
    values, labels = [], []
    for images, numbers in batches:
        numbers = np.asarray(numbers)
        values.append(explainer(np.asarray(images), numbers.tolist()).values)
        labels.append(numbers.astype("int64"))
    return np.concatenate(values), np.concatenate(labels)


def specialization(
    values: np.ndarray, labels: np.ndarray, classes: int, permutations: int = PERMUTATIONS, seed: int = 0
) -> Specialization:
    """Tests for each branch whether its share of its block depends on the class.

    The test is a permutation test of one-way analysis of variance: the labels are permuted, and the p-value is
    `(1 + permutations with an F at least as large) / (1 + permutations)`. Shares are tested and not logits, since the
    logits of some classes are larger in every branch. A branch that never contributes has the p-value 1.

    Args:
        values: contributions of the branches, `(images, blocks, 4)`.
        labels: int `(images,)`.
        classes: number of classes of the network.
        permutations: number of them. Where the images have fewer, all are made.
        seed: of the permutations.

    Raises:
        UserError: images of fewer than two classes, or no class with two images.
    """
    values, images = values.astype("float64"), np.bincount(labels, minlength=classes)
    if (images > 0).sum() < 2 or images.max() < 2:
        raise UserError(
            f"Expected images of two classes or more, some of the same class; Received: {len(labels)} images of "
            f"{(images > 0).sum()} classes."
        )
    parts = shares(values)
    rows = parts.reshape(len(labels), -1)
    varies = np.ptp(rows, axis=0) > 0
    effect, p = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    if varies.any():
        groups = [rows[labels == label][:, varies] for label in np.flatnonzero(images)]
        found = stats.permutation_test(
            groups,
            _f,
            permutation_type="independent",
            vectorized=True,
            n_resamples=permutations,
            batch=max(1, VALUES_AT_ONCE // rows.size),
            alternative="greater",
            rng=np.random.default_rng(seed),
        )
        between = found.statistic * (len(groups) - 1)
        effect[varies] = between / (between + len(labels) - len(groups))
        p[varies] = found.pvalue
    adjusted = stats.false_discovery_control(p)
    return Specialization(
        _class_means(values, labels, images),
        _class_means(parts, labels, images),
        effect.reshape(values.shape[1:]),
        p.reshape(values.shape[1:]),
        adjusted.reshape(values.shape[1:]),
        images,
    )


def _f(*groups: np.ndarray, axis: int) -> np.ndarray:
    return stats.f_oneway(*groups, axis=axis).statistic


def _class_means(values: np.ndarray, labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Means `(blocks, 4, classes)` over the images of each class; NaN where there are none."""
    sums = np.zeros((len(images), math.prod(values.shape[1:])))
    np.add.at(sums, labels, values.reshape(len(values), -1))
    means = np.divide(sums, images[:, None], out=np.full_like(sums, np.nan), where=images[:, None] > 0)
    return means.T.reshape(*values.shape[1:], len(images))

"""Two aims at once: fronts, their hypervolume, and how much a sample can be expected to add to it.

Points are (cost, gain): the lower the cost and the higher the gain, the better. The reference is a cost and a gain that
no point of interest is worse than. The hypervolume is the area between the front and the reference (Zitzler and Thiele,
1998): what two aims are one number by.
"""

import numpy as np
from scipy.special import ndtr


def front_of(costs: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Indices of the points that none beats, cheapest first; one of equal points.

    Args:
        costs, gains: `(points,)`.
    """
    order = np.lexsort((-gains, costs))
    best = np.maximum.accumulate(gains[order])
    return order[np.concatenate([[True], best[1:] > best[:-1]])] if len(order) else order


def hypervolume(costs: np.ndarray, gains: np.ndarray, reference: tuple[float, float]) -> float:
    """The area that points dominate within a reference.

    Args:
        costs, gains: `(points,)`.
        reference: largest cost and least gain; points beyond it add nothing.
    """
    edges, steps = _staircase(costs, gains, reference)
    return float(np.sum(np.diff(edges) * (steps - reference[1])))


def expected_improvement(
    costs: np.ndarray,
    means: np.ndarray,
    deviations: np.ndarray,
    front: tuple[np.ndarray, np.ndarray],
    reference: tuple[float, float],
) -> np.ndarray:
    """By how much the hypervolume is expected to grow with each candidate, whose cost is known and whose gain is
    normally distributed (Emmerich et al., 2011, in one uncertain dimension).

    At every cost from a candidate's own to the reference, the front rises by what its gain exceeds it: the integral of
    the expected improvement over the costs, a sum over the steps of the front.

    Args:
        costs, means, deviations: of the candidates, `(candidates,)`.
        front: costs and gains of the points so far.
        reference: as of `hypervolume`.

    Returns:
        `(candidates,)`, 0 or more.
    """
    edges, steps = _staircase(*front, reference)
    lengths = np.clip(edges[1:] - np.maximum(edges[:-1], costs[:, None]), 0, None)  # of each step, right of a candidate
    cheaper = np.clip(edges[0] - costs, 0, None)  # where the front has not begun
    deviations = np.maximum(deviations, 1e-12)[:, None]
    levels = np.append(reference[1], steps)
    z = (means[:, None] - levels) / deviations
    each = deviations * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))  # expected improvement on each level
    return np.sum(each * np.column_stack([cheaper, lengths]), axis=1)


def _staircase(costs: np.ndarray, gains: np.ndarray, reference: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The front as a function of the cost: its edges, the last of which is the reference, and the gain between two."""
    inside = (costs < reference[0]) & (gains > reference[1])
    costs, gains = costs[inside], gains[inside]
    front = front_of(costs, gains)
    return np.append(costs[front], reference[0]), gains[front]


def ranks(costs: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The number of the front that each point is on, 0 for the best, where each front is that of the points without
    those before (non-dominated sorting, as of NSGA-II; Deb et al., 2002)."""
    found, left = np.zeros(len(costs), int), np.arange(len(costs))
    for rank in range(len(costs)):
        if not len(left):
            break
        own = front_of(costs[left], gains[left])
        found[left[own]] = rank
        left = np.delete(left, own)
    return found


def contributions(costs: np.ndarray, gains: np.ndarray, reference: tuple[float, float]) -> np.ndarray:
    """What each point of one front adds to its hypervolume; infinite at both ends, which nothing else reaches (as of
    SMS-EMOA; Beume et al., 2007)."""
    whole = hypervolume(costs, gains, reference)
    alone = [
        whole - hypervolume(np.delete(costs, index), np.delete(gains, index), reference) for index in range(len(costs))
    ]
    found = np.array(alone)
    found[[np.argmin(costs), np.argmax(gains)]] = np.inf
    return found

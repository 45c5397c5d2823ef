"""Where the activations of an atlas lie in the plane, and the cells of a grid over it.

Sources: `lucid/recipes/activation_atlas/`; Carter et al. 2019, "Activation Atlas".
"""

import warnings
from typing import NamedTuple

import numpy as np

from inception_v1.errors import UserError

NEIGHBORS, MIN_DIST = 50, 0.05  # of UMAP
GRID, THRESHOLD = 10, 5
RCOND = 1e-3  # of the largest eigenvalue of E[a a^T]; smaller ones are left out of its inverse


class Cells(NamedTuple):
    """The cells of a grid that hold more than `THRESHOLD` activations, from the bottom row on and from left to right.

    Attributes:
        coordinates: int64 `(cells, 2)`: column from the left and row from the bottom.
        counts: int64 `(cells,)`, numbers of activations.
        means: float32 `(cells, channels)`, of their activations.
        attributions: float32 `(cells, classes)`, means of theirs.
        directions: float32 `(cells, channels)`, what their icons maximize.
    """

    coordinates: np.ndarray
    counts: np.ndarray
    means: np.ndarray
    attributions: np.ndarray
    directions: np.ndarray


def check_samples(count: int, neighbors: int = NEIGHBORS) -> None:
    """Raises UserError unless there are more activations than neighbors."""
    if not 2 <= neighbors < count:
        raise UserError(
            f"Expected from 2 neighbors to fewer than images; Received: {neighbors} neighbors and {count} images."
        )


def umap_layout(
    activations: np.ndarray, neighbors: int = NEIGHBORS, min_dist: float = MIN_DIST, seed: int = 0
) -> np.ndarray:
    """Places activations in the plane by UMAP with the cosine distance: float32 `(samples, 2)`.

    Args:
        activations: float `(samples, channels)`.
        neighbors: of each activation that are to stay near it.
        min_dist: between activations in the plane.
        seed: makes UMAP deterministic, and run on one core.

    Raises:
        UserError: as `check_samples`.
    """
    check_samples(len(activations), neighbors)
    import umap

    with warnings.catch_warnings():  # of a graph of neighbors in several parts, which are placed one by one
        warnings.simplefilter("ignore")
        return umap.UMAP(
            n_neighbors=neighbors, min_dist=min_dist, metric="cosine", random_state=seed, n_jobs=1
        ).fit_transform(activations)


def normalize_layout(
    layout: np.ndarray, min_percentile: float = 1, max_percentile: float = 99, relative_margin: float = 0.1
) -> np.ndarray:
    """Moves outliers to the margin, and scales a layout `(samples, 2)` to 0-1 along both axes."""
    low, high = np.percentile(layout, [min_percentile, max_percentile], axis=0)
    low = low - relative_margin * (high - low)
    high = high + relative_margin * (high - low)  # with the new lower end, as in Lucid
    clipped = np.clip(layout, low, high)
    clipped = clipped - clipped.min(axis=0)
    return clipped / clipped.max(axis=0)


def grid_cells(
    layout: np.ndarray, activations: np.ndarray, attributions: np.ndarray, grid: int = GRID, threshold: int = THRESHOLD
) -> Cells:
    """Means over the cells of a grid of `grid` rows and columns.

    Args:
        layout: `(samples, 2)`, 0-1.
        activations: `(samples, channels)`.
        attributions: `(samples, classes)`.
        grid: rows and columns.
        threshold: number of activations that a cell needs more than.

    Raises:
        UserError: no cell has so many.
    """
    edges = np.linspace(0, 1, grid + 1)
    edges[-1] = np.inf
    columns, rows = (np.digitize(layout, edges) - 1).T
    numbers, of_sample, counts = np.unique(rows * grid + columns, return_inverse=True, return_counts=True)
    full = counts > threshold
    if not full.any():
        raise UserError(
            f"Expected a grid with more than {threshold} of the {len(layout)} activations in a cell; Received: {grid} "
            f"rows and columns."
        )
    means, of_classes = (_means(of_sample, counts, values)[full] for values in (activations, attributions))
    coordinates = np.stack([numbers % grid, numbers // grid], axis=1)
    return Cells(coordinates[full], counts[full], means, of_classes, means)


def whitening(activations: np.ndarray) -> np.ndarray:
    """The inverse of E[a a^T], float32 `(channels, channels)`.

    Directions in which activations hardly vary, such as those of channels that are never active, are left out (the
    pseudoinverse): their inverse is noise unless there are far more activations than channels.
    """
    double = activations.astype("float64")
    return np.linalg.pinv(double.T @ double / len(double), RCOND, hermitian=True).astype("float32")


def _means(of_sample: np.ndarray, counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, of_sample.reshape(-1), values)
    return (sums / counts[:, None]).astype("float32")

"""Correlations between the channels of feature maps, at one position and between neighboring ones, and clusters of
channels that are active together."""

import dataclasses

import numpy as np

from inception_v1.extras import extra

OFFSETS = (0, 1, 2)  # pixels: what windows of 1x1, 3x3 and 5x5 reach from their centers
ALIVE = 1e-9  # variance below which a channel is taken for constant


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Channels that are active together.

    Attributes:
        labels: int `(channels,)`, the cluster of each; -1 for a channel that never changes.
        offsets: int `(clusters,)`, how many pixels apart the channels of each still are active together.
    """

    labels: np.ndarray
    offsets: np.ndarray

    def counts(self) -> tuple[int, int, int]:
        """Numbers of clusters that hold together at an offset of 0, 1 and 2 pixels at most."""
        zero, one, two = np.bincount(self.offsets, minlength=len(OFFSETS)).tolist()
        return zero, one, two


class ChannelCorrelations:
    """Pearson's correlations of channels over images and positions, in one pass; the memory depends on the number of
    channels alone.

    Source: Arora et al. 2013, arXiv 1310.6343, from which Szegedy et al. (arXiv 1409.4842, section 4) start.
    """

    def __init__(self) -> None:
        half = [(0, 0)] + [(y, x) for y in OFFSETS for x in (-2, -1, 0, 1, 2) if (y, x) > (0, 0)]
        self._moments = {shift: _Moments() for shift in half}  # those of the opposite shift are the transposed ones

    def update(self, maps: np.ndarray) -> None:
        """Takes more feature maps into account, float `(batch, height, width, channels)`.

        Pairs of positions that the maps are too small for stay out.
        """
        height, width = maps.shape[1:3]
        for (down, right), moments in self._moments.items():
            if down < height and abs(right) < width:
                here = maps[:, : height - down, max(0, -right) : width - max(0, right)]
                there = maps[:, down:, max(0, right) : width - max(0, -right)]
                moments.update(here, there)

    def at(self, offset: int) -> np.ndarray:
        """Largest correlation of each pair of channels at any shift whose longer side is so many pixels.

        Returns:
            float64 `(channels, channels)`, symmetric, 0 for channels that never change and for offsets that no feature
            map was large enough for. At offset 0 the diagonal is 1, at the others it is how smooth a channel is.
        """
        channels = self._moments[0, 0].channels
        found = np.full((channels, channels), -np.inf)
        for shift, moments in self._moments.items():
            if max(map(abs, shift)) == offset and moments.count:
                one = moments.correlations()
                found = np.maximum(found, np.maximum(one, one.T))
        return np.where(np.isfinite(found), found, 0.0)

    def alive(self) -> np.ndarray:
        """Which channels ever change, bool `(channels,)`."""
        return self._moments[0, 0].variances()[0] > ALIVE


class _Moments:
    """Sums over pairs of positions from which the correlations of two sets of channels follow."""

    def __init__(self) -> None:
        self.count, self.channels = 0, 0
        self._sums: list[np.ndarray] = []

    def update(self, here: np.ndarray, there: np.ndarray) -> None:
        a, b = (part.reshape(-1, part.shape[-1]).astype("float32") for part in (here, there))
        sums = [part.sum(axis=0, dtype="float64") for part in (a, b, a * a, b * b)]
        new = [*sums, (a.T @ b).astype("float64")]  # the product of one batch: single precision takes half the time
        self._sums = [old + more for old, more in zip(self._sums, new)] if self.count else new
        self.count, self.channels = self.count + len(a), a.shape[1]

    def variances(self) -> tuple[np.ndarray, np.ndarray]:
        a, b, aa, bb, _ = (total / self.count for total in self._sums)
        return aa - a * a, bb - b * b

    def correlations(self) -> np.ndarray:
        a, b, *_, ab = (total / self.count for total in self._sums)
        first, second = self.variances()
        scale = np.sqrt(np.outer(np.maximum(first, 0), np.maximum(second, 0)))
        changing = np.outer(first > ALIVE, second > ALIVE)
        return np.where(changing, (ab - np.outer(a, b)) / np.where(changing, scale, 1), 0.0)


def cluster_channels(correlations: ChannelCorrelations, threshold: float) -> Clusters:
    """Groups channels whose mean correlation, each pair at the offset where it is largest, is at least a threshold.

    A cluster holds together at an offset where, in the mean over its channels, the best of the correlations with its
    channels (at other offsets than 0 with the channel itself too) is at least the threshold; of several offsets the
    largest counts.

    Args:
        correlations: of the channels.
        threshold: correlation, 0-1 (both excluded).
    """
    with extra("tune"):
        from sklearn.cluster import AgglomerativeClustering

    alive = np.flatnonzero(correlations.alive())
    labels = np.full(len(correlations.alive()), -1)
    matrices = [correlations.at(offset)[np.ix_(alive, alive)] for offset in OFFSETS]
    if len(alive) < 2:
        labels[alive] = 0
    else:
        distance = 1 - np.max(matrices, axis=0)
        np.fill_diagonal(distance, 0)
        grouping = AgglomerativeClustering(
            None, metric="precomputed", linkage="average", distance_threshold=1 - threshold
        )
        labels[alive] = grouping.fit_predict(distance)
    members = [np.flatnonzero(labels[alive] == number) for number in range(labels.max(initial=-1) + 1)]
    return Clusters(labels, np.array([_offset(matrices, own, threshold) for own in members], "int64"))


def _offset(matrices: list[np.ndarray], members: np.ndarray, threshold: float) -> int:
    """Largest offset at which a cluster holds together; 0 for one that does nowhere."""
    for offset in reversed(OFFSETS[1:]):
        if matrices[offset][np.ix_(members, members)].max(axis=1).mean() >= threshold:
            return offset
    return 0

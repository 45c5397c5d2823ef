"""Correlations of channels and their clusters, on activations whose clusters are known."""

import numpy as np
import pytest

from tuning.correlations import ChannelCorrelations, cluster_channels


def planted(offsets, members=3, images=6, size=24, seed=0):
    """Noise, of which so many channels for each number in `offsets` see the same, shifted by at most that many pixels,
    each pair of neighbors by exactly that many; and the cluster of each channel."""
    random = np.random.default_rng(seed)
    columns, labels = [], []
    for number, offset in enumerate(offsets):
        latent = random.normal(0, 1, (images, size + 4, size + 4))
        for member in range(members):
            shift = offset * (member % 2)
            columns.append(
                latent[:, 2 : 2 + size, 2 - shift : 2 - shift + size] + random.normal(0, 0.2, (1, size, size))
            )
            labels.append(number)
    order = random.permutation(len(columns))
    return np.stack(columns, axis=-1)[..., order].astype("float32"), np.array(labels)[order]


def correlations_of(*batches):
    found = ChannelCorrelations()
    for maps in batches:
        found.update(maps)
    return found


def test_correlations_equal_numpys_over_all_pairs_of_positions():
    maps = np.random.default_rng(1).uniform(0, 1, (5, 6, 7, 4)).astype("float32")
    maps[:, 1:, :, 2] += maps[:, :-1, :, 0]  # channel 2 repeats channel 0 a pixel below
    found = correlations_of(maps[:2], maps[2:])
    flat = maps.reshape(-1, 4)
    np.testing.assert_allclose(found.at(0), np.corrcoef(flat, rowvar=False), atol=1e-6)
    expected = max(
        np.corrcoef(
            maps[:, max(0, -y) : 6 - max(0, y), max(0, -x) : 7 - max(0, x), 0].ravel(),
            maps[:, max(0, y) : 6 - max(0, -y), max(0, x) : 7 - max(0, -x), 2].ravel(),
        )[0, 1]
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
        if (y, x) != (0, 0)
    )
    assert expected > 0.5
    assert found.at(1)[0, 2] == pytest.approx(expected, abs=1e-6)
    assert found.at(1)[2, 0] == found.at(1)[0, 2]


@pytest.mark.parametrize("offsets", [(0, 0, 0, 1, 1, 2), (0, 1, 2, 2), (0, 0)])
def test_planted_clusters_come_back(offsets):
    maps, labels = planted(offsets)
    found = cluster_channels(correlations_of(maps[:3], maps[3:]), threshold=0.5)
    assert found.counts() == tuple(offsets.count(offset) for offset in (0, 1, 2))
    for number, offset in enumerate(offsets):
        (cluster,) = set(found.labels[labels == number])  # all of one cluster are together
        assert found.offsets[cluster] == offset


def test_smooth_channels_hold_together_over_the_pixels_that_they_cover():
    latent = np.random.default_rng(0).normal(0, 1, (4, 12, 12, 1)).astype("float32")
    smooth = np.kron(latent, np.ones((1, 6, 6, 1), "float32"))  # patches of six pixels
    found = cluster_channels(correlations_of(np.concatenate([smooth, smooth], axis=-1)), threshold=0.5)
    assert found.counts() == (0, 0, 1)


def test_constant_channels_belong_to_no_cluster_and_small_maps_have_no_offsets():
    maps = np.random.default_rng(0).normal(0, 1, (50, 1, 1, 3)).astype("float32")
    maps[..., 1] = 2.0
    found = correlations_of(maps)
    assert not found.at(1).any()
    assert found.alive().tolist() == [True, False, True]
    clusters = cluster_channels(found, threshold=0.5)
    assert clusters.labels[1] == -1
    assert clusters.counts() == (2, 0, 0)

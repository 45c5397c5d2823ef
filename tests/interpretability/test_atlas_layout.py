"""The plane of an activation atlas, against Lucid's and its own promises."""

import numpy as np
import pytest

from inception_v1.errors import UserError
from interpretability.atlas_layout import grid_cells, normalize_layout, umap_layout, whitening
from tests.oracles import lucid

STORED = lucid.case("atlas")


def test_the_layout_is_normalized_as_lucids():
    np.testing.assert_allclose(normalize_layout(STORED["layout"]), STORED["normalized"], rtol=0, atol=1e-5)


def test_cells_and_their_means_are_lucids():
    activations = STORED["activations"]
    attributions = activations[:, :3] * 2
    cells = grid_cells(STORED["normalized"], activations, attributions, lucid.GRID)
    np.testing.assert_array_equal(cells.coordinates, STORED["coordinates"])
    np.testing.assert_array_equal(cells.counts, STORED["counts"])
    np.testing.assert_allclose(cells.means, STORED["means"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(cells.attributions, STORED["means"][:, :3] * 2, rtol=0, atol=1e-5)


def test_a_cell_needs_more_than_five_activations():
    layout = np.repeat([[0.1, 0.1], [0.9, 1.0]], [5, 6], axis=0)
    cells = grid_cells(layout, np.ones((11, 2)), np.ones((11, 0)), 2)
    assert (cells.coordinates.tolist(), cells.counts.tolist()) == ([[1, 1]], [6])
    with pytest.raises(UserError, match="more than 5 of the 11 activations in a cell; Received: 40"):
        grid_cells(np.random.default_rng(0).uniform(0, 1, (11, 2)), np.ones((11, 2)), np.ones((11, 0)), 40)


def test_whitening_is_lucids():
    np.testing.assert_allclose(whitening(STORED["activations"]), STORED["whitening"], rtol=0, atol=1e-5)


def test_channels_that_are_never_active_are_left_out_of_the_whitening():
    activations = np.insert(STORED["activations"], 3, 0, axis=1)
    expected = np.insert(np.insert(STORED["whitening"], 3, 0, axis=0), 3, 0, axis=1)
    np.testing.assert_allclose(whitening(activations), expected, rtol=0, atol=1e-5)


def test_layouts_are_reproducible_and_keep_neighbors_together():
    random = np.random.default_rng(0)
    centers = random.gamma(1, 1, (2, 6))
    activations = (centers.repeat(20, axis=0) * random.uniform(0.9, 1.1, (40, 6))).astype("float32")
    one, same, other = (umap_layout(activations, 10, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    within = max(np.ptp(part, axis=0).max() for part in (one[:20], one[20:]))
    assert np.linalg.norm(one[:20].mean(axis=0) - one[20:].mean(axis=0)) > within


@pytest.mark.parametrize(("count", "neighbors"), [(40, 40), (40, 1)])
def test_fewer_activations_than_neighbors_are_refused(count, neighbors):
    with pytest.raises(UserError, match=f"Received: {neighbors} neighbors and {count} images"):
        umap_layout(np.ones((count, 2)), neighbors)

"""The permutation test of branches, on planted contributions and without any."""

import numpy as np
import pytest
from scipy import stats

from inception_v1.errors import UserError
from interpretability.branches import shares
from interpretability.specialization import specialization


def noise(images, blocks, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(1, 0.3, (images, blocks, 4)), random.integers(0, 5, images)


def test_the_branch_that_serves_one_class_has_the_smallest_p_value():
    values, labels = noise(60, 3)
    values[labels == 2, 1, 3] += 2
    found = specialization(values, labels, 6)
    assert found.p.min() == found.p[1, 3] == 1 / 1000
    assert found.effect.argmax() == 7
    assert np.nanargmax(found.shares[1, 3]) == np.nanargmax(found.means[1, 3]) == 2
    assert found.images.tolist() == np.bincount(labels, minlength=6).tolist()
    np.testing.assert_allclose(found.means[0, 1, 4], values[labels == 4, 0, 1].mean())
    np.testing.assert_allclose(found.shares[0, 1, 4], shares(values)[labels == 4, 0, 1].mean())
    assert np.isnan(found.means[:, :, 5]).all()
    np.testing.assert_allclose(found.adjusted, stats.false_discovery_control(found.p.ravel()).reshape(3, 4))
    assert (found.adjusted >= found.p).all()


def test_larger_logits_of_a_class_are_no_specialization():
    values, labels = noise(60, 3)
    np.testing.assert_array_equal(
        specialization(values * (1 + 9 * (labels == 2))[:, None, None], labels, 5, 99).p,
        specialization(values, labels, 5, 99).p,
    )


def test_without_specialization_p_values_are_uniform():
    values, labels = noise(40, 50)
    p = specialization(values, labels, 5, 199).p
    assert stats.kstest(p[:, 0], stats.uniform.cdf).pvalue > 0.01
    assert 0.35 < p.mean() < 0.65
    found = specialization(values, labels, 5, 199, seed=1)
    assert not (found.p == p).all()
    np.testing.assert_array_equal(specialization(values, labels, 5, 199).p, p)


def test_the_effect_is_the_variance_between_classes():
    values, labels = noise(40, 1)
    rows = shares(values)[:, 0, 2]
    between = sum((labels == label).sum() * (rows[labels == label].mean() - rows.mean()) ** 2 for label in range(5))
    np.testing.assert_allclose(specialization(values, labels, 5, 9).effect[0, 2], between / rows.var() / len(rows))


def test_a_dead_branch_is_not_specialized():
    values, labels = noise(40, 2)
    values[:, 1] = 0
    found = specialization(values, labels, 5, 99)
    assert (found.p[1] == 1).all()
    assert (found.effect[1] == 0).all()
    assert (found.p[0] < 1).any()


def test_splits_without_a_comparison_are_refused():
    values, _ = noise(3, 1)
    for labels in ([1, 1, 1], [0, 1, 2]):
        with pytest.raises(UserError, match="Expected images of two classes or more"):
            specialization(values, np.array(labels), 5)

"""The permutation test of branches, on planted contributions and without any."""

import numpy as np
import pytest
from scipy import stats

from inception_v1.errors import UserError
from interpretability.branches import shares
from interpretability.specialization import SplitContributions, specialization

CLASSES = 5


def generalists(images, blocks, seed=0):
    """Branches that gain equally for all classes, of which each logit is another function nevertheless."""
    random = np.random.default_rng(seed)
    labels, reference = random.integers(0, CLASSES, images), random.normal(0, 9, (CLASSES, blocks, 4))
    return SplitContributions(reference[labels] + random.normal(1, 0.5, (images, blocks, 4)), labels, reference)


def test_the_branch_that_serves_one_class_has_the_smallest_p_value():
    values, labels, reference = generalists(60, 3)
    values[labels == 2, 1, 3] += 4
    reference = np.concatenate([reference, np.full((1, 3, 4), np.nan)])  # a class without images
    found = specialization(SplitContributions(values, labels, reference))
    assert found.p.min() == found.p[1, 3] == 1 / 1000
    assert found.spread.argmax() == 7
    assert np.nanargmax(found.shares[1, 3]) == np.nanargmax(found.gains[1, 3]) == 2
    assert found.images.tolist() == np.bincount(labels, minlength=6).tolist()
    of_four = labels == 4
    np.testing.assert_allclose(found.means[0, 1, 4], values[of_four, 0, 1].mean())
    gains = values[of_four] - reference[4]
    np.testing.assert_allclose(found.gains[0, 1, 4], gains[:, 0, 1].mean())
    np.testing.assert_allclose(found.shares[0, 1, 4], shares(gains)[:, 0, 1].mean())
    assert np.isnan(found.means[:, :, 5]).all()
    np.testing.assert_allclose(found.adjusted, stats.false_discovery_control(found.p.ravel()).reshape(3, 4))
    assert (found.adjusted >= found.p).all()


def test_larger_logits_of_a_class_are_no_specialization():
    values, labels, reference = generalists(60, 3)
    larger = reference[labels] + (values - reference[labels]) * (1 + 9 * (labels == 2))[:, None, None]
    p = [specialization(SplitContributions(v, labels, reference), 99).p for v in (values, larger)]
    np.testing.assert_array_equal(*p)


def test_without_specialization_p_values_are_uniform():
    found = generalists(40, 50)
    p = specialization(found, 199).p
    assert stats.kstest(p[:, 0], stats.uniform.cdf).pvalue > 0.01
    assert 0.4 < p.mean() < 0.6
    assert not (specialization(found, 199, seed=1).p == p).all()
    np.testing.assert_array_equal(specialization(found, 199).p, p)


def test_the_spread_is_the_standard_deviation_between_classes():
    values, labels, reference = generalists(40, 1)
    rows = shares(values - reference[labels])[:, 0, 2]
    between = np.std([rows[labels == label].mean() for label in labels])
    spread = specialization(SplitContributions(values, labels, reference), 9).spread[0, 2]
    np.testing.assert_allclose(spread, between)


def test_branches_that_contribute_the_same_to_every_image_are_not_specialized():
    values, labels, reference = generalists(40, 2)
    values[:, 1] = reference[labels][:, 1]
    found = specialization(SplitContributions(values, labels, reference), 99)
    assert (found.p[1] == 1).all()
    assert (found.spread[1] == 0).all()
    assert (found.p[0] < 1).any()


def test_splits_without_a_comparison_are_refused():
    found = generalists(3, 1)
    for labels in ([1, 1, 1], [0, 1, 2]):
        with pytest.raises(UserError, match="Expected images of two classes or more"):
            specialization(found._replace(labels=np.array(labels)))

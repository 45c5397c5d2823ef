import pytest

from inception_v1 import Spec, cost
from inception_v1.dependencies import channels, narrower
from tuning import allocation

NETWORKS = {
    "imagenet": Spec("batchnorm", input_shape=(64, 64, 3)),
    "cifar": Spec("cifar", stem="cifar", input_shape=(32, 32, 3)),
    "narrow": Spec("paper", input_shape=(32, 32, 1), width_multiplier=0.1),  # widths of 8 to 40
}


def equal_losses(spec):
    return {branch.name: [0.1, 0.2, 0.3, 0.4] for branch in allocation.branches(spec)}


def kept(spec, widths):
    """Fraction of the channels that each branch keeps."""
    return {
        branch.name: sum(widths[name] for name in branch.convolutions) / sum(branch.convolutions.values())
        for branch in allocation.branches(spec)
    }


@pytest.mark.parametrize(
    ("width", "fraction", "multiple", "stays"),
    [
        (64, 0.5, 8, 32),
        (64, 0.3, 8, 16),
        (64, 0, 8, 8),
        (64, 0, 1, 1),
        (6, 0, 8, 6),
        (204, 1, 8, 204),
        (204, 0.99, 8, 200),
    ],
)
def test_widths_are_multiples_and_never_more_than_there_are(width, fraction, multiple, stays):
    assert allocation.kept_width(width, fraction, multiple) == stays


@pytest.mark.parametrize("name", NETWORKS)
def test_branches_are_all_convolutions_once(name):
    spec = NETWORKS[name]
    found = [conv for branch in allocation.branches(spec) for conv in branch.convolutions]
    assert sorted(found) == sorted(channels(spec))
    assert len(allocation.branches(spec)) == 9 * 4 + len(spec.all_stem_widths())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("multiple", [8, 1])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_the_budget_holds_and_is_used(name, multiple, keep):
    spec = NETWORKS[name]
    budget = keep * cost(spec).without_aux().macs
    if budget < allocation.smallest(spec, multiple):
        pytest.skip("below what the network reaches")
    for widths in (
        allocation.uniform(spec, budget, multiple),
        allocation.by_sensitivity(spec, equal_losses(spec), budget, multiple),
    ):
        macs = cost(narrower(spec, widths)).without_aux().macs
        assert macs == allocation.macs(spec, widths)
        assert budget >= macs > (0.8 if multiple == 1 else 0.6) * budget
        own = channels(spec)
        assert all(width == own[conv] or width % multiple == 0 for conv, width in widths.items())


def test_the_network_of_the_pruning_literature_gets_below_its_usual_budget():
    spec = NETWORKS["cifar"]
    macs = cost(narrower(spec, allocation.uniform(spec, 500e6, 8))).without_aux().macs
    assert 450e6 < macs <= 500e6 < cost(spec).without_aux().macs


def test_branches_that_the_loss_misses_less_lose_more():
    spec = NETWORKS["cifar"]
    losses = equal_losses(spec) | {"4b/3x3": [0.0, 0.0, 0.0, 0.0], "4c/3x3": [5.0, 10.0, 15.0, 20.0]}
    found = kept(spec, allocation.by_sensitivity(spec, losses, 0.5 * cost(spec).without_aux().macs, 8))
    assert found["4b/3x3"] < 0.3
    assert found["4c/3x3"] == 1
    assert found["4b/3x3"] < found["3b/3x3"] < 1


def test_a_budget_out_of_reach_is_refused_with_the_bounds():
    spec = NETWORKS["imagenet"]
    own, least = cost(spec).without_aux().macs, allocation.smallest(spec, 8)
    with pytest.raises(
        ValueError, match=f"at least {least:,} multiply-accumulates .keep_macs={least / own:.4f}.*8 chan"
    ):
        allocation.check_reachable(spec, least - 1, 8)
    allocation.check_reachable(spec, least, 8)
    with pytest.raises(ValueError, match=f"below the network's own {own:,} multiply-accumulates"):
        allocation.check_reachable(spec, own, 8)

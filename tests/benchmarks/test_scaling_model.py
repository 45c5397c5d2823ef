"""The model of scaling: its limits, and what it must not do."""

import pytest

from benchmarks import scaling_model as model
from benchmarks.scaling_model import Link
from inception_v1 import Spec, cost

LINK, TIMES = Link(bandwidth=1e9, latency=1e-5), [0.1, 0.11, 0.14]
ENDLESS = Link(float("inf"), 0.0)
BYTES = 53_513_120


def synchronous(replicas, link=LINK, overlap=0.0):
    return model.efficiency(TIMES, model.synchronous_seconds(replicas, TIMES, BYTES, link, overlap))


def asynchronous(replicas, link=LINK, servers=8, overlap=0.0):
    return model.efficiency(TIMES, model.asynchronous_seconds(replicas, TIMES, BYTES, link, servers, overlap))


def test_gradients_are_four_bytes_a_parameter():
    assert model.gradient_bytes(cost(Spec("paper")).trainable) == 4 * 13_378_280 == BYTES


def test_a_replica_alone_waits_for_nobody():
    assert synchronous(1) == pytest.approx(1)
    assert asynchronous(1, ENDLESS) == pytest.approx(1)


def test_without_a_link_only_stragglers_cost():
    """Of two draws the maximum is the largest in 5 of 9 cases, and the smallest in one."""
    expected = (5 * 0.14 + 3 * 0.11 + 0.1) / 9
    assert model.expected_maximum(TIMES, 2) == pytest.approx(expected)
    assert synchronous(2, ENDLESS) == pytest.approx(sum(TIMES) / 3 / expected)
    assert synchronous(10**6, ENDLESS) == pytest.approx(sum(TIMES) / 3 / 0.14)
    assert asynchronous(10**6, ENDLESS) == pytest.approx(1)


def test_more_replicas_and_slower_links_never_help():
    counts = (1, 2, 8, 64, 1024)
    for curve in (synchronous, asynchronous):
        values = [curve(count) for count in counts]
        assert values == sorted(values, reverse=True)
        assert curve(64, Link(1e8, 1e-5)) < curve(64, LINK) < curve(64, ENDLESS)
        assert curve(8, overlap=2 / 3) > curve(8)


def test_the_times_of_collectives_follow_their_formulas():
    assert model.ring_seconds(4, 4e9, Link(1e9, 0.0)) == pytest.approx(2 * 3 / 4 * 4)
    assert model.ring_seconds(4, 0, Link(1e9, 1e-3)) == pytest.approx(6e-3)
    assert model.tree_seconds(1024, 0, Link(1e9, 1e-3)) == pytest.approx(20e-3)
    assert model.fit_link(4, 6e-3, 6.006, 4e9) == pytest.approx(Link(1e9, 1e-3))


def test_full_servers_limit_the_throughput():
    full = model.saturation(TIMES, BYTES, LINK, servers=8)
    assert asynchronous(full) == pytest.approx(asynchronous(1))
    assert 2 * full * asynchronous(2 * full) == pytest.approx(
        full * asynchronous(full)
    )  # images per second stand still
    assert asynchronous(2 * full, servers=16) == pytest.approx(asynchronous(full))

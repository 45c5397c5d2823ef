"""How the throughput of a training step grows with the replicas: a model of a few lines, based on measurements.

With n replicas, B bytes of gradients, links of W bytes/s each way and a latency of L seconds a message, and a replica
that computes for c seconds a step (on average; c_1 ... c_m are the measured ones):

    ring all-reduce      R(n) = 2 (n - 1)/n B/W + 2 (n - 1) L          each replica sends and receives 2 (n - 1)/n B
    tree all-reduce      T(n) = 2 B/W + 2 ceil(log2 n) L               up and down a double binary tree, pipelined
    synchronous step     s(n) = E[max of n of c_1 ... c_m] + max(0, min(R, T) - o c)
    asynchronous step    a(n) = max(c + max(0, 2 B/W + 2 L - o c), n B / (p W))        with p parameter servers
    efficiency           c / s(n) or c / a(n)

Efficiency is that against a replica alone that communicates with nobody: the images per second of n replicas as a
fraction of n times those of such a replica. Assumptions:

- The network is flat: every pair of replicas has the same link, full duplex, nothing else on it, and no switch is
  oversubscribed. Adding up costs nothing.
- o is the fraction of the computation behind which communication hides: 0, where it starts after the last gradient, or
  2/3, the backward pass, where each gradient leaves as soon as it is there. The truth is between.
- Step times are independent between replicas and steps and distributed as the measured ones, so that no step is slower
  than the slowest that was measured.
- An asynchronous worker reads all weights (B) and sends all gradients (B); its steps wait for nobody, so that
  stragglers cost only themselves. A server sends and receives n B/p in the time of one step of each worker; weights are
  spread evenly over the servers, whose own work (the update) takes no time.
- While a worker computes, each of the others applies one update: gradients are n - 1 updates stale. The model does not
  say what that, or a larger global batch, costs in accuracy.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Link(NamedTuple):
    """What a replica is connected by.

    Attributes:
        bandwidth: bytes per second, each way.
        latency: seconds until a message of no length has arrived.
    """

    bandwidth: float
    latency: float


def gradient_bytes(parameters: int, itemsize: int = 4) -> int:
    """Bytes of the gradients of so many trainable parameters, of `itemsize` bytes each."""
    return parameters * itemsize


def ring_seconds(replicas: int, size: float, link: Link) -> float:
    """Seconds of a ring all-reduce of `size` bytes: 2 (n - 1) rounds of one n-th each."""
    return 2 * (replicas - 1) * (size / replicas / link.bandwidth + link.latency)


def tree_seconds(replicas: int, size: float, link: Link) -> float:
    """Seconds of a tree all-reduce of `size` bytes, reduced upwards and broadcast downwards in a pipeline."""
    return 2 * size / link.bandwidth + 2 * math.ceil(math.log2(replicas)) * link.latency


def all_reduce_seconds(replicas: int, size: float, link: Link) -> float:
    """Seconds of the faster of both, as collective libraries choose."""
    return min(ring_seconds(replicas, size, link), tree_seconds(replicas, size, link))


def expected_maximum(times: Sequence[float], replicas: int) -> float:
    """Expected maximum of so many independent draws from `times`, in their unit; their mean for one.

    It is the sum over the sorted times of t_k ((k/m)^n - ((k - 1)/m)^n), at most the largest.
    """
    m = len(times)
    return sum(t * ((k / m) ** replicas - ((k - 1) / m) ** replicas) for k, t in enumerate(sorted(times), 1))


def synchronous_seconds(replicas: int, times: Sequence[float], size: float, link: Link, overlap: float = 0.0) -> float:
    """Seconds of a step for which all replicas wait.

    Args:
        replicas: that share the step, each with its own batch.
        times: measured seconds of a replica's computation.
        size: bytes of the gradients.
        link: of each replica.
        overlap: fraction of the computation behind which communication hides, 0 to 1.
    """
    hidden = overlap * expected_maximum(times, 1)
    return expected_maximum(times, replicas) + max(0.0, all_reduce_seconds(replicas, size, link) - hidden)


def asynchronous_seconds(
    replicas: int, times: Sequence[float], size: float, link: Link, servers: int, overlap: float = 0.0
) -> float:
    """Seconds of one worker's step: its own work, or its turn on the servers' links where those are full.

    Args:
        replicas: workers.
        times, size, link, overlap: as for `synchronous_seconds`; `link` is a server's too.
        servers: parameter servers.
    """
    return max(_alone(times, size, link, overlap), replicas * size / (servers * link.bandwidth))


def saturation(times: Sequence[float], size: float, link: Link, servers: int, overlap: float = 0.0) -> float:
    """Number of workers from which the links of the parameter servers are full, and throughput grows no more."""
    return _alone(times, size, link, overlap) * servers * link.bandwidth / size


def _alone(times: Sequence[float], size: float, link: Link, overlap: float) -> float:
    compute = expected_maximum(times, 1)
    return compute + max(0.0, 2 * size / link.bandwidth + 2 * link.latency - overlap * compute)


def efficiency(times: Sequence[float], seconds: float) -> float:
    """Throughput of a replica whose step takes `seconds`, as a fraction of that of one that only computes; 0 to 1."""
    return expected_maximum(times, 1) / seconds


def fit_link(replicas: int, small: float, large: float, size: float) -> Link:
    """The link on which a ring all-reduce takes `small` seconds for nearly nothing and `large` for `size` bytes."""
    rounds = 2 * (replicas - 1)
    return Link(rounds / replicas * size / max(large - small, 1e-9), small / rounds)

"""What ends a command early: what a user can cause, a lost cluster, and preemption; with their exit statuses."""

from inception_v1.errors import UserError

__all__ = [
    "CLUSTER_STATUS",
    "USER_STATUS",
    "ClusterError",
    "DivergenceError",
    "Preempted",
    "UserError",
    "VerificationError",
]

USER_STATUS = 2  # of a process that met a `UserError`: a restart does not help
CLUSTER_STATUS = 3  # of a process that lost the others


class DivergenceError(UserError):
    """A loss that is not finite: a lower learning rate or a longer warm-up helps."""


class VerificationError(UserError):
    """An export that does not compute what the Keras model does: another release of its converter may help."""


class ClusterError(RuntimeError):
    """A process of the cluster is missing or lost. The same command on all machines resumes."""


class Preempted(KeyboardInterrupt):
    """SIGTERM arrived, as before a machine is taken away."""

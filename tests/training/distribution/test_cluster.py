import json
import socket
import threading

import pytest
import tensorflow as tf

from training.distribution import cluster
from training.distribution.choose import make_strategy

CLUSTER = {"worker": ["localhost:1", "localhost:2"]}
FIRST, EVALUATOR = ({"type": job, "index": 0} for job in ("worker", "evaluator"))


@pytest.mark.parametrize(
    ("config", "received"),
    [
        (None, "TF_CONFIG=None"),
        ("{", "TF_CONFIG='{'"),
        ("[]", "TF_CONFIG='[]'"),
        ('{"cluster": 3}', "cluster"),
        ("{}", "jobs none"),
        (json.dumps({"cluster": CLUSTER}), "task"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": 2}}), "index"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "chief", "index": 0}}), "chief"),
        (json.dumps({"cluster": {"ps": ["localhost:1"]}, "task": {"type": "ps", "index": 0}}), "jobs"),
        (json.dumps({"cluster": {**CLUSTER, "evaluator": ["localhost:3"]}, "task": EVALUATOR}), "('evaluator', 0)"),
        (
            json.dumps({"cluster": {"worker": ["localhost"]}, "task": FIRST}),
            "worker 0 at 'localhost', which is no HOST",
        ),
        (json.dumps({"cluster": {"worker": ["localhost:x"]}, "task": FIRST}), "'localhost:x', which is no HOST:PORT"),
        (
            json.dumps({"cluster": {"worker": ["localhost:1", "localhost:1"]}, "task": FIRST}),
            "worker 0 and worker 1, both at localhost:1",
        ),
    ],
)
def test_a_tf_config_that_names_no_cluster_is_refused(config, received, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=r"(?s)TF_CONFIG to name a cluster with worker .*; Received: .*") as error:
        make_strategy("multiworker", 0.1)
    assert received in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", ["{", "[]", '{"cluster": 3}', '{"cluster": {"worker": 3}}'])
def test_a_broken_tf_config_is_refused_whatever_the_strategy(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=r"Expected TF_CONFIG .*; Received: "):
        make_strategy()


def test_a_message_says_what_happened_and_not_where():
    text = "Graph execution error:\n\nDetected at node Reduce defined at (most recent call last):\n<stack traces ...>"
    error = tf.errors.UnavailableError(None, None, f"{text}\nConnection reset by peer\n\t [[{{{{node Reduce}}}}]]")
    assert cluster.loss_message([], error) == (
        "lost another process (Connection reset by peer); give the same command on all machines to resume"
    )
    assert cluster.first_line(tf.errors.UnavailableError(None, None, "")) == "UnavailableError"


def test_a_lost_machine_is_named_though_its_port_still_accepts_connections_for_a_moment():
    server = socket.create_server(("localhost", 0))
    address = f"localhost:{server.getsockname()[1]}"
    threading.Timer(0.5, server.close).start()
    assert cluster.find_lost({"worker 0": address}) == [f"worker 0 at {address}"]

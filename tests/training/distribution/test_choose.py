import json
import types

import keras
import pytest

from training.distribution import choose
from training.distribution.choose import make_strategy

CLUSTER = {"worker": ["localhost:1", "localhost:2"]}


def test_an_unknown_strategy_and_one_of_the_other_backend_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"strategy='mirorred'\. Did you mean 'mirrored'"):
        make_strategy("mirorred")
    with pytest.raises(ValueError, match="=jax for strategy 'data-parallel'; Received: Keras on tensorf"):
        make_strategy("data-parallel")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for name in ("mirrored", "multiworker", "tpu"):
        with pytest.raises(ValueError, match=f"KERAS_BACKEND=tensorflow for strategy '{name}'; Received: Keras on jax"):
            make_strategy(name)


@pytest.mark.parametrize(
    ("backend", "environment", "name"),
    [
        ("tensorflow", {}, "default"),
        ("tensorflow", {"TF_CONFIG": "{}"}, "default"),
        ("tensorflow", {"TF_CONFIG": json.dumps({"cluster": CLUSTER})}, "multiworker"),
        ("tensorflow", {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "default"),
        ("tensorflow", {"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}'}, "multiworker"),
        (
            "tensorflow",
            {"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]}}'},
            "parameter-server",
        ),
        ("tensorflow", {"SLURM_STEP_NUM_TASKS": "2"}, "multiworker"),
        ("tensorflow", {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, "default"),
        ("jax", {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, "data-parallel"),
        ("jax", {"TF_CONFIG": json.dumps({"cluster": CLUSTER})}, "default"),
    ],
)
def test_the_environment_chooses(backend, environment, name, monkeypatch):
    for variable in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "KERAS_DISTRIBUTION_NUM_PROCESSES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(choose, "make_resolver", lambda *_: None)  # no such machines exist
    for strategy in ("MultiWorker", "ParameterServer", "DataParallel"):
        monkeypatch.setattr(choose, strategy, lambda name, *_: types.SimpleNamespace(name=name))
    assert make_strategy().name == name

"""Runs whose processes are killed, preempted, missing or of different minds; each in a process group of its own."""

import json
import os
import re
import socket
import sys
import threading
import time

import numpy as np
import pytest

import googlenet
from tests.inception_v1.test_keras_patches import free_ports, processes
from tests.training.distribution.test_strategy import FLAGS, ROOT, check_equal, metrics
from training import recipe as recipes
from training.distribution import strategy
from training.run_folder import RunFolder

LIMIT = 300  # seconds for any process
FAULT = """
import os, signal, sys
import googlenet
from training import callbacks

own = callbacks.StopOnDivergence.on_train_batch_end

def at_a_step(self, batch, logs=None):
    own(self, batch, logs)
    if (self._epoch, batch) == ({epoch}, 1):
        os.kill(os.getpid(), signal.{name})

callbacks.StopOnDivergence.on_train_batch_end = at_a_step
sys.exit(googlenet.main(sys.argv[1:]))
"""


def command(flags, *fault):
    """`googlenet` with these flags, perhaps hit by a signal: its name, and the epoch in whose second step it comes."""
    if fault:
        return [sys.executable, "-c", FAULT.format(name=fault[0], epoch=fault[1]), *map(str, flags)]
    return [sys.executable, str(ROOT / "googlenet.py"), *map(str, flags)]


def environments(size):
    """What each worker of a new cluster finds."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(size)]}
    return [
        {"PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})}
        for i in range(size)
    ]


def ended(*commands):
    """Exit status and output of the workers of a new cluster."""
    with processes(list(zip(commands, environments(len(commands)), strict=True))) as workers:
        outputs = [worker.communicate(timeout=LIMIT)[0] for worker in workers]
        return [(worker.returncode, output) for worker, output in zip(workers, outputs)]


@pytest.fixture(scope="module")
def flags(data_dir):
    """Of a run of two epochs of three steps that ends alike on one device and on two workers."""
    return ["train", *FLAGS, "--average", "0.9", "--data-dir", data_dir]


def saved_epochs(folder):
    with np.load(folder / "state.npz") as state:
        return json.loads(str(state["about"]))["epochs"]


def test_workers_end_when_one_is_killed_and_go_on_together(flags, tmp_path):
    """The second of two is gone in the midst of an epoch; the same command again ends as one process does."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    assert googlenet.main([*flags, "--out", str(whole)]) == 0
    argv = [*flags, "--batch-size", "32", "--out", folder]
    with processes(list(zip([command(argv), command(argv, "SIGKILL", 1)], environments(2)))) as (chief, killed):
        killed.wait(LIMIT)
        began = time.monotonic()
        output = chief.communicate(timeout=60)[0]
        seconds = time.monotonic() - began
    print(f"the survivor ended {seconds:.1f} s after the other")
    assert (chief.returncode, killed.returncode) == (3, -9), output[-3000:]
    assert re.search(
        r"^googlenet: error: lost worker 1 at localhost:\d+ \(.*\); give the same command on all machines to go on\n",
        output,
        re.MULTILINE,
    ), output[-3000:]
    assert "Traceback" not in output
    assert seconds < 45
    assert (metrics(folder)["status"], saved_epochs(folder)) == ("failed", 1)
    for status, output in ended(command(argv), command(argv)):
        assert status == 0, output[-3000:]
    check_equal(folder, whole)
    assert metrics(folder)["status"] == "finished"


def test_a_lost_machine_is_named_though_its_port_still_answers_for_a_moment():
    server = socket.create_server(("localhost", 0))
    address = f"localhost:{server.getsockname()[1]}"
    threading.Timer(0.5, server.close).start()
    assert strategy.gone({"worker 0": address}) == [f"worker 0 at {address}"]


def test_a_worker_that_never_comes_is_named_and_nothing_is_written(flags, tmp_path, monkeypatch, capsys):
    environment = environments(2)[0]
    monkeypatch.setenv("TF_CONFIG", environment["TF_CONFIG"])
    missing = json.loads(environment["TF_CONFIG"])["cluster"]["worker"][1]
    monkeypatch.setattr(os, "_exit", sys.exit)  # which this process would not survive
    with pytest.raises(SystemExit) as ended:
        googlenet.main([*flags, "--out", str(tmp_path / "run"), "--cluster-timeout", "1"])
    assert ended.value.code == 3
    expected = f"googlenet: error: Expected every machine within 1 s; missing: worker 1 at {missing}.\n"
    assert capsys.readouterr().err == expected
    assert not list(tmp_path.iterdir())


def test_workers_that_meet_a_folder_in_use_all_end_and_leave_it_alone(flags, tmp_path):
    run = RunFolder(tmp_path / "run")
    argv = [*map(str, flags), "--batch-size", "32", "--out", str(run.path), "--overwrite"]
    with run.locked():
        recipe = googlenet._parse(argv).settings
        assert run.check_usable(recipe, False, 1) is False  # a lock alone is no run
        run.create(recipe, recipes.network(recipe, 1, 10), list("0123456789"))
        before = {path.name: path.read_bytes() for path in run.path.iterdir()}
        for status, output in ended(command(argv), command(argv)):
            assert status == 2, output[-3000:]
            expected = f"googlenet: error: Expected a folder that no run is using; Received: {str(run.path)!r}.\n"
            assert output.endswith(expected), output[-3000:]
        assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_workers_of_different_recipes_all_end_and_say_what_differs(flags, tmp_path):
    argv = [*flags, "--out", tmp_path / "run"]
    for status, output in ended(command([*argv, "--batch-size", "32"]), command([*argv, "--seed", "7"])):
        assert status == 2, output[-3000:]
        assert output.endswith(
            "googlenet: error: Expected the same settings on every worker; Received: on worker 0 and 1: batch_size 32 "
            "and 64, seed 0 and 7.\n"
        ), output[-3000:]
    assert not list(tmp_path.iterdir())

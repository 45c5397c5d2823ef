"""Runs whose processes are killed, preempted, missing or disagree; each is in its own process group."""

import json
import os
import re
import sys
import time

import pytest

import googlenet
from tests.helpers.processes import LIMIT, command, done, ended, environments, processes, start
from tests.helpers.runs import DIGITS, FLAGS, check_equal, metrics, saved_position
from training.run_folder import RunFolder
from training.task import recipe_spec


@pytest.fixture(scope="module")
def flags(data_dir):
    """Flags of a run of two epochs of three steps that ends with the same weights on one device and on two workers."""
    return ["train", *FLAGS, "--average", "0.9", "--data-dir", data_dir]


def test_workers_end_when_one_is_killed_and_resume_together_and_end_as_one_device(flags, tmp_path):
    """The second of two is lost after the second step of the second epoch; the launcher's workers resume the run."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    assert googlenet.main([*flags, "--out", str(whole)]) == 0
    argv = [*flags, "--batch-size", "32", "--save-every", "1", "--out", folder]
    with processes(list(zip([command(argv), command(argv, "SIGKILL", 1)], environments(2)))) as (chief, killed):
        killed.wait(LIMIT)
        began = time.monotonic()
        output = chief.communicate(timeout=60)[0]
        seconds = time.monotonic() - began
    print(f"the survivor ended {seconds:.1f} s after the other: {output.splitlines()[-1]}")
    assert (chief.returncode, killed.returncode) == (3, -9), output[-3000:]
    assert re.search(
        r"^googlenet: error: lost worker 1 at localhost:\d+ \(.*\); give the same command on all machines to resume\n",
        output,
        re.MULTILINE,
    ), output[-3000:]
    assert "Traceback" not in output
    assert "(Graph execution error" not in output
    assert seconds < 45
    assert (metrics(folder)["status"], saved_position(folder)) == ("failed", (1, 1))
    output = done(command(["launch", "--workers", "2", *argv]), start=start)
    check_equal(folder, whole)
    known = metrics(folder)
    assert (known["status"], known["strategy"], known["replicas"]) == ("finished", "multiworker", 2)
    assert output.count("epoch   2/2") == output.count("run folder: ") == 1  # the chief's alone
    events = [len(list(run.glob("tensorboard/**/events*"))) for run in (folder, whole)]
    assert events[0] == 2 * events[1]  # the chief's alone, of both starts
    assert known["heads"]["main"]["loss"] == pytest.approx(metrics(whole)["heads"]["main"]["loss"], abs=1e-5)


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


def test_workers_whose_folder_is_in_use_all_end_and_leave_it_alone(flags, tmp_path):
    run = RunFolder(tmp_path / "run")
    argv = [*map(str, flags), "--batch-size", "32", "--out", str(run.path), "--overwrite"]
    with run.locked():
        recipe = googlenet._parse(argv).settings
        spec = recipe_spec(recipe, 1, 10)
        assert run.check_usable(recipe, spec, False, 1) is False  # a lock alone is no run
        run.create(recipe, spec, DIGITS)
        before = {path.name: path.read_bytes() for path in run.path.iterdir()}
        for status, output in ended(command(argv), command(argv)):
            assert status == 2, output[-3000:]
            expected = f"googlenet: error: Expected a folder that no run is using; Received: {str(run.path)!r}.\n"
            assert output.endswith(expected), output[-3000:]
        assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_workers_of_different_recipes_all_end_and_report_what_differs(flags, tmp_path):
    argv = [*flags, "--out", tmp_path / "run"]
    for status, output in ended(command([*argv, "--batch-size", "32"]), command([*argv, "--seed", "7"])):
        assert status == 2, output[-3000:]
        assert output.endswith(
            "googlenet: error: Expected the same settings on every worker; Received: on worker 0 and 1: batch_size 32 "
            "and 64, seed 0 and 7.\n"
        ), output[-3000:]
    assert not list(tmp_path.iterdir())

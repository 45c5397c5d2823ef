"""A run that is stopped from outside, in a file of its own, so that it can run in parallel with the other tests.

`pytest tests/training/test_interruptions.py --interruptions 40` stops it that often: 30 times by SIGKILL, 10 times by a
disk that is full for a while.
"""

import dataclasses
import itertools
import re
import resource
import signal
import sys
import time

import numpy as np
import pytest

import googlenet
from inception_v1.atomic_files import write_json
from inception_v1.spec import read_spec
from tests.helpers import ROOT
from tests.helpers.processes import LIMIT, command, done, processes
from tests.helpers.runs import MAIN, NAIVE, check_identical, metrics, saved_position

KINDS = ("writing", "filling", "training", "starting")
TOO_SMALL = 40_000  # bytes, for a state or a model, but not for the history


@pytest.fixture
def interruptions(request):
    return request.config.getoption("interruptions")


def state_time(folder):
    """When the newest state was written; 0 without one."""
    files = [path.stat().st_mtime_ns for path in folder.glob("state*.npz")]
    return max(files, default=0)


def interrupt(process, folder, kind, rng):
    """Stops a run at a random moment of a kind: when a file is being written, with a disk that is full for a while,
    after a state was written, or at any time since the start. Returns how it ended."""
    before, began = state_time(folder), time.monotonic()

    def wait_until(happens):
        while not happens() and process.poll() is None:
            assert time.monotonic() - began < LIMIT
            time.sleep(0.001)

    if kind == "starting":
        time.sleep(rng.uniform(0, 20))
    else:
        wait_until(lambda: state_time(folder) > before)
        time.sleep(rng.uniform(0, 0.5))
    if kind == "writing":
        wait_until(lambda: list(folder.glob(".*.part*")))
    if kind == "filling" and process.poll() is None:
        hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (TOO_SMALL, -1))[1]
        emptied = time.monotonic() + rng.uniform(0, 10)
        wait_until(lambda: time.monotonic() > emptied)
        if process.poll() is None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
            time.sleep(rng.uniform(0, 0.5))
    process.kill()
    output = process.communicate(timeout=LIMIT)[0]
    full = process.returncode == 1 and "googlenet: error: Cannot write" in output
    assert process.returncode == -signal.SIGKILL or (kind == "filling" and full), output[-2000:]
    return "full disk" if full else f"SIGKILL, {kind}"


def test_a_run_stopped_at_random_moments_ends_like_an_uninterrupted_one(data_dir, tmp_path, interruptions):
    """The same command gives bitwise identical weights, statistics, averages, history, metrics and report."""
    epochs = 3 + interruptions // 3  # of ten steps
    network = dataclasses.replace(read_spec(NAIVE), variant="batchnorm", dropout=0.4)
    write_json(tmp_path / "spec.json", network.to_dict())
    flags = ["train", "--spec", tmp_path / "spec.json", "--train-split", "train[:320]", "--epochs", epochs]
    flags += ["--average", "0.9", "--deterministic", "--seed", "3", "--data-dir", data_dir, "--batch-size", "32"]
    flags += ["--test-split", "test[:9]", "--save-every", "1", "--out"]
    folder, whole = tmp_path / "run", tmp_path / "whole"
    argv, environment = [*flags, folder], {"PYTHONPATH": str(ROOT)}
    with processes([(command(argv, "SIGTERM", 1), environment)]) as (process,):
        output = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 143, output[-2000:]
    assert (metrics(folder)["status"], saved_position(folder)) == ("preempted", (1, 2))
    message = r"googlenet: interrupted: after 1 epochs and 2 steps; its best model, of epoch 1, is in .*best\.keras; "
    assert re.search(rf"^{message}the same command resumes\n\Z", output, re.MULTILINE), output
    assert googlenet.main(["evaluate", str(folder), "--split", "test[:5]"]) == 0

    rng, ends = np.random.default_rng(interruptions), []
    for kind in itertools.islice(itertools.cycle(KINDS), interruptions):
        with processes([(command(argv), environment)]) as (process,):
            ends.append(interrupt(process, folder, kind, rng))
        print(ends[-1], saved_position(folder), flush=True)
    commands = (" ".join(map(str, [*flags, out])) for out in (folder, whole))
    output = done([sys.executable, "-c", MAIN, *commands], timeout=LIMIT * (1 + epochs // 5))
    assert output.count(f"epoch   1/{epochs}") == 1  # that of the run which was not interrupted

    names = {path.relative_to(folder) for path in folder.rglob("*") if "tensorboard" not in path.parts}
    assert names == {path.relative_to(whole) for path in whole.rglob("*") if "tensorboard" not in path.parts}
    for name in names:
        if (whole / name).is_file() and name.suffix not in (
            ".json",
            ".keras",
            ".html",
        ):  # a page has the folder and seconds
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    check_identical(folder, whole, ("best.keras", "raw.keras"))
    one, other = (metrics(run) | {"seconds": None, "command": None} for run in (folder, whole))
    assert one == other
    assert one["status"] == "finished"

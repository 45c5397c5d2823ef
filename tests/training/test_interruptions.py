"""A run that is stopped from outside, in a file of its own, so that it can run in parallel with the other tests."""

import re
import signal
import sys

import numpy as np

import googlenet
from tests.helpers import ROOT
from tests.helpers.processes import LIMIT, command, done, processes
from tests.helpers.runs import MAIN, metrics, saved_epochs, weights


def test_a_run_killed_and_preempted_ends_like_an_uninterrupted_one(data_dir, tmp_path):
    """The same command three times gives bitwise identical weights, statistics, moving averages and history."""
    flags = ["train", "--width-multiplier", "0.1", "--no-aux", "--train-split", "train[:128]", "--epochs", "3"]
    flags += ["--average", "0.9", "--deterministic", "--seed", "3", "--data-dir", data_dir]
    flags += ["--test-split", "test[:9]", "--out"]
    folder, whole = tmp_path / "run", tmp_path / "whole"
    argv, environment = [*flags, folder], {"PYTHONPATH": str(ROOT)}
    for epoch, (name, status, recorded) in enumerate(
        [("SIGKILL", -signal.SIGKILL, "running"), ("SIGTERM", 143, "preempted")], 1
    ):
        with processes([(command(argv, name, epoch), environment)]) as (process,):
            output = process.communicate(timeout=LIMIT)[0]
        assert process.returncode == status, output[-2000:]
        assert (metrics(folder)["status"], saved_epochs(folder)) == (recorded, epoch)
        assert f"epoch   {epoch}/3" in output
        assert "epoch   1/3" not in output or epoch == 1
        assert not list(folder.glob(".*part*"))
    message = r"googlenet: interrupted: after 2 epochs; its best model, of epoch \d, is in .*best\.keras; the "
    assert re.search(rf"^{message}same command resumes\n\Z", output, re.MULTILINE), output
    assert googlenet.main(["evaluate", str(folder), "--split", "test[:5]"]) == 0
    output = done([sys.executable, "-c", MAIN, *(" ".join(map(str, [*flags, out])) for out in (folder, whole))])
    assert output.count("epoch   2/3") == 1  # that of the run which was not interrupted
    assert output.count("epoch   3/3") == 2
    assert (metrics(folder)["status"], metrics(folder)["epochs"]) == ("finished", 3)
    assert (folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    for file in ("best.keras", "raw.keras"):
        one, other = weights(whole, file), weights(folder, file)
        assert len(one) > 100
        assert all(np.array_equal(one[name], other[name]) for name in one | other)

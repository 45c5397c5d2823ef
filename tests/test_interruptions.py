"""One run that is stopped in every way there is; in a file of its own, so that it runs beside the other faults."""

import re
import signal

import numpy as np

import googlenet

from .test_faults import LIMIT, command, saved_epochs
from .test_multiworker import processes
from .test_strategy import ROOT, done, metrics, weights


def test_a_run_killed_preempted_and_interrupted_ends_like_one_that_was_not(data_dir, tmp_path):
    """The same command four times: same weights, statistics, dropout, averages and history, to the bit."""
    flags = ["train", "--width-multiplier", "0.1", "--train-split", "train[:128]", "--test-split", "test[:9]"]
    flags += ["--epochs", "4", "--average", "0.9", "--deterministic", "--seed", "3", "--data-dir", data_dir, "--out"]
    folder, whole = tmp_path / "run", tmp_path / "whole"
    done(command([*flags, whole]))
    argv, environment = [*flags, folder], {"PYTHONPATH": str(ROOT)}
    for epoch, (name, status, recorded, word) in enumerate(
        [
            ("SIGKILL", -signal.SIGKILL, "running", None),
            ("SIGTERM", 143, "preempted", "interrupted"),
            ("SIGINT", 130, "interrupted", "interrupted"),
        ],
        1,
    ):
        with processes([(command(argv, name, epoch), environment)]) as (process,):
            output = process.communicate(timeout=LIMIT)[0]
        assert process.returncode == status, output[-2000:]
        assert (metrics(folder)["status"], saved_epochs(folder)) == (recorded, epoch)
        assert f"epoch   {epoch}/4" in output
        assert "epoch   1/4" not in output or epoch == 1
        if word:
            said = rf"googlenet: {word}: after {epoch} epochs; its best model, of epoch \d, is in .*best\.keras; the "
            assert re.search(rf"^{said}same command goes on\n\Z", output, re.MULTILINE), output
        assert not list(folder.glob(".*part*"))
    assert googlenet.main(["evaluate", str(folder), "--split", "test[:5]"]) == 0
    output = done(command(argv))
    assert "epoch   3/4" not in output
    assert metrics(folder)["status"] == "finished"
    assert (folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    for file in ("best.keras", "raw.keras"):
        one, other = weights(whole, file), weights(folder, file)
        assert all(np.array_equal(one[name], other[name]) for name in one | other)

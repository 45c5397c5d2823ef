"""Searches by `googlenet tune`: killed, shared by workers and by devices, and the best network trained anew."""

import dataclasses
import re
import signal
import sys

import keras
import psutil
import pytest

import googlenet
from inception_v1 import cost
from inception_v1.atomic_files import write_json
from tests.helpers import ROOT
from tests.helpers.pages import Page
from tests.helpers.processes import command, done, processes, start
from tests.helpers.runs import MAIN, TWO_CPUS, metrics, saved_position
from tests.helpers.searches import outcomes
from training import run_folder
from training.run_folder import RunFolder
from tuning.search_folder import read_search

pytestmark = pytest.mark.usefixtures("few_blocks")

FLAGS = "tune --space branches --tuner evolution --trials 2 --keep-macs 0.05 --variant plain --no-aux --epochs 3 "
FLAGS += "--width-multiplier 0.2 --train-split train[:64] --validation-split test[:20] --batch-size 32 "
FAULT = """
import os, pathlib, signal, sys, time
import googlenet
from training import callbacks

original = callbacks.StopOnDivergence.on_train_batch_end
steps = []

def kill_at_step(self, batch, logs=None):
    original(self, batch, logs)
    steps.append(batch)
    if len(steps) == {step}:
        while list(pathlib.Path(sys.argv[-1]).rglob(".state.part*")):  # that of the step before is being written
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

callbacks.StopOnDivergence.on_train_batch_end = kill_at_step
sys.exit(googlenet.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """A search that nothing interrupted; in a process of its own, since determinism stays once it is on."""
    folder = tmp_path_factory.mktemp("tuner") / "whole"
    output = done([sys.executable, "-c", MAIN, f"{FLAGS} --data-dir {data_dir} --out {folder}"])
    assert output.count("best") >= 2
    return folder


def test_a_killed_search_resumes_in_the_middle_of_a_trial(whole, data_dir, tmp_path):
    """SIGKILL after the second step of its second epoch: steps 1 to 6 are the first trial's."""
    flags = [*FLAGS.split(), "--save-every", "1", "--data-dir", data_dir, "--out", str(tmp_path / "search")]
    with processes([([sys.executable, "-c", FAULT.format(step=10), *flags], {"PYTHONPATH": str(ROOT)})]) as (process,):
        output = process.communicate(timeout=200)[0]
    assert process.returncode == -signal.SIGKILL, output[-2000:]
    assert metrics(tmp_path / "search/trials/trial_1/run")["status"] == "running"
    assert saved_position(tmp_path / "search/trials/trial_1/run") == (1, 1)
    kept = (tmp_path / "search/trials/trial_1/run/history.csv").read_text()
    assert len(kept.splitlines()) == 2
    done(command(flags), start=start)
    assert outcomes(read_search(tmp_path / "search")) == outcomes(read_search(whole))
    for number in range(2):
        history = f"trials/trial_{number}/run/history.csv"
        assert (tmp_path / "search" / history).read_text() == (whole / history).read_text()
    assert (tmp_path / "search/trials/trial_1/run/history.csv").read_text().startswith(kept)


def test_the_best_network_is_trained_as_it_is(whole, tmp_path, capsys):
    best = read_search(whole).best
    flags = ["train", "--recipe", str(whole / "best/recipe.json"), "--epochs", "1", "--no-deterministic"]
    flags += ["--out", str(tmp_path / "run")]
    assert googlenet.main([*flags, "--spec", str(whole / "best/spec.json")]) == 0
    spec = keras.saving.load_model(tmp_path / "run/best.keras", compile=False).spec
    assert spec.block_widths() == best.spec.block_widths()
    assert cost(spec).without_aux().macs == best.macs
    run = RunFolder(tmp_path / "run")
    write_json(run / run_folder.METRICS, run.metrics() | {"status": "interrupted"})
    (run / run_folder.STATE).touch()
    write_json(tmp_path / "other.json", dataclasses.replace(best.spec, widths={"3a": (8,) * 6}).to_dict())
    assert googlenet.main([*flags, "--spec", str(tmp_path / "other.json")]) == 2
    assert "a run with widths {'3a': Widths(conv1=" in capsys.readouterr().err


def test_the_page_of_a_search_is_written_anew_where_it_is_missing(whole, capsys):
    page = whole / "report" / "report.html"
    page.unlink()
    assert googlenet.main(["show", str(whole), "--no-open"]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    links = [attributes["href"] for tag, attributes in Page(page.read_text("utf-8")).tags if tag == "a"]
    assert sorted(links) == [f"../trials/trial_{number}/run/report/report.html" for number in range(2)]
    assert all((whole / "report" / link).is_file() for link in links)


def test_two_workers_share_a_search_and_one_may_die(data_dir, tmp_path):
    """The second worker to begin a trial is killed in it; it alone is started again and resumes that trial."""
    folder = tmp_path / "search"
    flags = [*FLAGS.replace("evolution --trials 2", "random --trials 3").split(), "--data-dir", data_dir]
    argv = command(["launch", "--workers", "2", *flags, "--out", folder])
    with processes([(argv, {"PYTHONPATH": str(ROOT)})], start) as (launcher,):
        lines = []
        for line in launcher.stdout:
            lines.append(line)
            if "[chief] 1/3  trial" in line:
                worker = next(
                    p
                    for p in psutil.Process(launcher.pid).children()
                    if "worker1" in p.environ()["KERASTUNER_TUNER_ID"]
                )
                worker.kill()
        assert launcher.wait(200) == 0, "".join(lines)
    output = "".join(lines)
    assert "[launch] worker 1 was killed by SIGKILL; starting it again, restart 1 of 3" in output
    found = read_search(folder)
    assert [trial.status for trial in found.trials] == ["COMPLETED"] * 3
    assert [trial.epochs for trial in found.trials] == [3] * 3
    assert len(re.findall(r"^\[chief\] \d/3  trial \d  val_main_accuracy 0\.\d{4}  best ", output, re.MULTILINE)) == 3
    assert (folder / "report/report.html").is_file()


def test_the_devices_of_a_trial_share_its_steps(data_dir, tmp_path):
    flags = (
        f"{FLAGS.replace('--trials 2', '--trials 1')} --data-dir {data_dir} --strategy mirrored --out {tmp_path / 's'}"
    )
    done([sys.executable, "-c", TWO_CPUS + MAIN, flags])
    assert metrics(tmp_path / "s/trials/trial_0/run")["replicas"] == 2
    assert [trial.status for trial in read_search(tmp_path / "s").trials] == ["COMPLETED"]

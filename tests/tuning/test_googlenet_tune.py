"""Searches whose trials are trained: from a script, killed, shared by workers and by devices."""

import dataclasses
import re
import signal
import sys

import keras
import keras_tuner as kt
import numpy as np
import psutil
import pytest
import tensorflow as tf

import googlenet
import tuning
from inception_v1 import Spec, cost
from tests.inception_v1.test_keras_patches import processes
from tests.training.distribution.test_strategy import MAIN, ROOT, TWO_CPUS, done, metrics
from tests.tuning.test_search import KEPT, told
from training import run_folder as runs
from training.recipe import PRESETS
from training.run_folder import RunFolder
from tuning import search as tuner
from tuning.space import Space


def test_a_users_own_tuner_builds_networks_in_the_budget(tmp_path):
    """With Keras Tuner's own random search; both trials train alike where their values are alike."""
    start = Spec("plain", input_shape=(32, 32, 1), classes=10, aux=False, width_multiplier=0.2)
    space = Space("branches", start, dataclasses.replace(PRESETS["digits"], epochs=1), budget=KEPT)
    hypermodel = tuning.GoogLeNetHyperModel(space, steps_per_epoch=2)
    images = np.random.default_rng(0).normal(size=(16, 32, 32, 1)).astype("float32")
    labels = np.arange(16) % 10
    own = kt.RandomSearch(
        hypermodel, kt.Objective("val_main_accuracy", "max"), max_trials=2, seed=1, directory=tmp_path, overwrite=True
    )
    own.search(images, labels, validation_data=(images, labels), epochs=1, batch_size=8, verbose=0)
    trials = own.oracle.get_best_trials(2)
    assert [trial.status for trial in trials] == ["COMPLETED"] * 2
    for trial in trials:
        model = hypermodel.build(trial.hyperparameters)
        assert abs(cost(model).without_aux().macs / space.reference[1] - 1) <= 0.05
    first, second = (hypermodel.build(trials[0].hyperparameters) for _ in range(2))
    for model in (first, second):
        hypermodel.fit(trials[0].hyperparameters, model, images, labels, batch_size=8, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights()))


def test_a_script_searches_on_its_own_datasets(tmp_path, recipe):
    start = Spec("plain", input_shape=(32, 32, 1), classes=3, aux=False, width_multiplier=0.2)
    images = np.random.default_rng(0).normal(size=(20, 32, 32, 1)).astype("float32")
    labels = np.arange(20) % 3
    ds = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8, drop_remainder=True)
    common = {"recipe": dataclasses.replace(recipe, epochs=2), "network": start, "tuner": "random", "budget": KEPT}
    found = tuning.search(tmp_path / "own", trials=2, datasets=(ds, ds), **common)
    assert [trial.status for trial in found.trials] == ["COMPLETED"] * 2, found.trials[0].message
    assert [trial.epochs for trial in found.trials] == [2, 2]
    model = keras.saving.load_model(tmp_path / "own/trials/trial_1/run/best.keras", compile=False)
    scores = model.evaluate(ds, return_dict=True, verbose=0) if model.compile("sgd") is None else {}
    assert scores["main_accuracy"] == pytest.approx(found.trials[1].score)
    for bad, message in [
        ((ds, ds.repeat()), "Expected finite datasets"),
        ((ds, ds.map(lambda image, label: image)), "Expected datasets of"),
        ((ds.map(lambda image, label: (image[:, :16], label)), ds), "Expected datasets of"),
    ]:
        with pytest.raises(ValueError, match=message):
            tuning.search(tmp_path / "bad", trials=2, datasets=bad, **common)
    assert not (tmp_path / "bad").exists()


def test_a_trial_ends_early(tmp_path, recipe):
    """Its rate is so low that nothing changes: of equals the first counts as the best."""
    recipe = dataclasses.replace(
        recipe, learning_rate=1e-9, weight_decay=0.0, epochs=5, warmup_epochs=0, width_multiplier=0.1
    )
    found = tuning.search(tmp_path / "s", recipe=recipe, tuner="random", trials=1, patience=2)
    assert [trial.epochs for trial in found.trials] == [3]


FLAGS = "tune --space branches --tuner evolution --trials 3 --keep-macs 0.05 --variant plain --no-aux --epochs 3 "
FLAGS += "--width-multiplier 0.2 --train-split train[:64] --validation-split test[:20] --batch-size 32 "
FAULT = """
import os, signal, sys
import googlenet
from training import callbacks

own = callbacks.StopOnDivergence.on_train_batch_end
steps = []

def at_a_step(self, batch, logs=None):
    own(self, batch, logs)
    steps.append(batch)
    if len(steps) == {step}:
        os.kill(os.getpid(), signal.SIGKILL)

callbacks.StopOnDivergence.on_train_batch_end = at_a_step
sys.exit(googlenet.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """A search that nothing disturbed; in a process of its own, since determinism stays once it is on."""
    folder = tmp_path_factory.mktemp("tuner") / "whole"
    output = done([sys.executable, "-c", MAIN, f"{FLAGS} --data-dir {data_dir} --out {folder}"])
    assert output.count("best") >= 3
    return folder


def test_a_killed_search_goes_on_in_the_midst_of_a_trial(whole, data_dir, tmp_path):
    """SIGKILL in the second epoch of the second trial: steps 1 to 6 are the first one's."""
    flags = [*FLAGS.split(), "--data-dir", data_dir, "--out", str(tmp_path / "search")]
    with processes([([sys.executable, "-c", FAULT.format(step=10), *flags], {"PYTHONPATH": str(ROOT)})]) as (process,):
        output = process.communicate(timeout=200)[0]
    assert process.returncode == -signal.SIGKILL, output[-2000:]
    assert metrics(tmp_path / "search/trials/trial_1/run")["status"] == "running"
    kept = (tmp_path / "search/trials/trial_1/run/history.csv").read_text()
    assert len(kept.splitlines()) == 2
    done([sys.executable, str(ROOT / "googlenet.py"), *flags])
    assert told(tuner.read(tmp_path / "search")) == told(tuner.read(whole))
    for number in range(3):
        history = f"trials/trial_{number}/run/history.csv"
        assert (tmp_path / "search" / history).read_text() == (whole / history).read_text()
    assert (tmp_path / "search/trials/trial_1/run/history.csv").read_text().startswith(kept)


def test_the_best_network_is_trained_as_it_is(whole, tmp_path, capsys):
    best = tuner.read(whole).best
    flags = ["train", "--recipe", str(whole / "best/recipe.json"), "--epochs", "1", "--no-deterministic"]
    flags += ["--out", str(tmp_path / "run")]
    assert googlenet.main([*flags, "--spec", str(whole / "best/spec.json")]) == 0
    spec = keras.saving.load_model(tmp_path / "run/best.keras", compile=False).spec
    assert spec.block_widths() == best.spec.block_widths()
    assert cost(spec).without_aux().macs == best.macs
    run = RunFolder(tmp_path / "run")
    runs.write_json(run / runs.METRICS, run.metrics() | {"status": "interrupted"})
    (run / runs.STATE).touch()
    runs.write_json(tmp_path / "other.json", dataclasses.replace(best.spec, widths={"3a": (8,) * 6}).to_dict())
    assert googlenet.main([*flags, "--spec", str(tmp_path / "other.json")]) == 2
    assert "a run with widths {'3a': Widths(conv1=" in capsys.readouterr().err


def test_two_workers_share_a_search_and_one_may_die(data_dir, tmp_path):
    """The second worker to begin a trial is killed in it; it starts again alone and goes on with that trial."""
    folder = tmp_path / "search"
    flags = [*FLAGS.replace("evolution --trials 3", "random --trials 5").split(), "--data-dir", data_dir]
    command = [sys.executable, str(ROOT / "googlenet.py"), "launch", "--workers", "2", *flags, "--out", str(folder)]
    with processes([(command, {"PYTHONPATH": str(ROOT)})]) as (launcher,):
        lines = []
        for line in launcher.stdout:
            lines.append(line)
            if "[chief] 1/5  trial" in line:
                worker = next(
                    p
                    for p in psutil.Process(launcher.pid).children()
                    if "worker1" in p.environ()["KERASTUNER_TUNER_ID"]
                )
                worker.kill()
        assert launcher.wait(200) == 0, "".join(lines)
    output = "".join(lines)
    assert "[launch] worker 1 was killed by SIGKILL; starting it again, restart 1 of 3" in output
    found = tuner.read(folder)
    assert [trial.status for trial in found.trials] == ["COMPLETED"] * 5
    assert [trial.epochs for trial in found.trials] == [3] * 5
    assert len(re.findall(r"^\[chief\] \d/5  trial \d  val_main_accuracy 0\.\d{4}  best ", output, re.MULTILINE)) == 5
    assert (folder / "report/report.html").is_file()


def test_the_devices_of_a_trial_share_its_steps(data_dir, tmp_path):
    flags = (
        f"{FLAGS.replace('--trials 3', '--trials 1')} --data-dir {data_dir} --strategy mirrored --out {tmp_path / 's'}"
    )
    done([sys.executable, "-c", TWO_CPUS + MAIN, flags])
    assert metrics(tmp_path / "s/trials/trial_0/run")["replicas"] == 2
    assert [trial.status for trial in tuner.read(tmp_path / "s").trials] == ["COMPLETED"]

"""When the state of a run is saved, what its files survive, and what resumes from them."""

import dataclasses
import logging
import signal

import keras
import numpy as np
import pytest

from inception_v1.spec import read_spec
from tests.helpers.runs import NAIVE, check_equal, metrics, saved_position, state_at
from training.data.pipeline import Position
from training.errors import Preempted, UserError
from training.interruption import Interruption
from training.run_folder import RunFolder
from training.run_state import Interval, SaveState, StateFiles, read_position, read_state
from training.train import train


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", Interval(seconds=600)),
        ("30s", Interval(seconds=30)),
        ("1.5h", Interval(seconds=5400)),
        ("500", Interval(steps=500)),
        ("1 step", Interval(steps=1)),
        ("500 steps", Interval(steps=500)),
        (None, Interval()),
    ],
)
def test_an_interval_is_a_time_or_a_number_of_steps(text, expected):
    assert Interval.parse(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0s", "-5m", "1.5", "ten", "10 m s", "1d", "nan", "inf"])
def test_another_interval_is_refused_before_anything_is_done(text, recipe, tmp_path):
    with pytest.raises(UserError, match=rf"Expected save_every to be a time .*; Received: save_every='{text}'"):
        train(recipe, tmp_path / "run", save_every=text)
    assert not (tmp_path / "run").exists()


def test_time_and_steps_end_an_interval():
    assert Interval(seconds=2).is_over(2.0, 1)
    assert not Interval(seconds=2).is_over(1.9, 10**6)
    assert Interval(steps=2).is_over(0.0, 2)
    assert not Interval(steps=2).is_over(1e6, 1)
    assert not Interval().is_over(1e6, 10**6)


def check_state(found, expected):
    assert dataclasses.replace(found, variables=[]) == dataclasses.replace(expected, variables=[])
    for one, other in zip(found.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, caplog):
    """Wherever a byte is changed or the file ends; the whole generation is not lost by the next write."""
    run = RunFolder(tmp_path)
    with StateFiles(run) as files:
        for step in (1, 2, 3):
            files.write(state_at(4, step))
        check_state(files.read()[1], state_at(4, 3))
        assert not caplog.records
        newest, whole = run.states()[0], run.states()[0].read_bytes()
        places = np.random.default_rng(0).integers(len(whole), size=100)
        fallen_back = 0
        for place in places:
            for damaged in (
                whole[:place],
                whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :],
                whole[:place] + bytes(len(whole) - place),
            ):
                newest.write_bytes(damaged)
                name, found = files.read()
                check_state(found, state_at(4, 3 if name == newest.name else 2))
                fallen_back += name != newest.name
        assert fallen_back > 250  # some bytes, as the time of a zip's entry, mean nothing
        assert "state.npz (" in caplog.text
        assert "is damaged; the run resumes from the state before, state.previous.npz" in caplog.text
        newest.write_bytes(whole[:100])
        assert read_position(run) == Position(4, 2)
        files.read()
        files.write(state_at(4, 4))
        assert [read_state(path).position.step for path in run.states()] == [4, 2]
        for path in run.states():
            path.write_bytes(b"")
        with pytest.raises(UserError, match=r"Expected a state .*--overwrite.*state\.npz \(.*state\.previous\.npz \("):
            files.read()


def test_a_kill_between_two_renames_leaves_a_state(tmp_path):
    with StateFiles(RunFolder(tmp_path)) as files:
        files.write(state_at(0, 1))
        (tmp_path / "state.npz").rename(tmp_path / "state.previous.npz")
        assert read_position(RunFolder(tmp_path)) == Position(0, 1)
        files.write(state_at(0, 2))
        assert [read_state(path).position.step for path in RunFolder(tmp_path).states()] == [2, 1]


def test_a_state_that_cannot_be_written_in_the_background_is_a_warning(tmp_path, caplog, monkeypatch):
    with StateFiles(RunFolder(tmp_path)) as files:
        files.write(state_at(0, 1))
        with monkeypatch.context() as patch:
            patch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            files.write_later(state_at(0, 2))
            files.wait()
        assert not files.busy
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "Cannot write" in record.message
        assert "No space left on device" in record.message
        check_state(files.read()[1], state_at(0, 1))
        files.write_later(state_at(0, 3))
        files.wait()
        check_state(files.read()[1], state_at(0, 3))


def send(*numbers, waits=True):
    """Sends signals to this process while they are noted. Returns the type of what ended it."""
    try:
        with Interruption() as interruption:
            interruption.waits = waits
            for number in numbers:
                signal.raise_signal(number)
            numbers = ()
    except KeyboardInterrupt as ended:
        return type(ended), "at the end" if numbers == () else "at once"
    return None


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C reaches the tests even where they run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_signals_wait_for_a_step_and_a_second_ctrl_c_does_not():
    term, ctrl_c = signal.SIGTERM, signal.SIGINT
    assert send() is None
    assert send(term, waits=False) == (Preempted, "at once")
    assert send(ctrl_c, waits=False) == (KeyboardInterrupt, "at once")
    assert send(term, term) == (Preempted, "at the end")  # and not forgotten where nobody looked
    assert send(ctrl_c) == (KeyboardInterrupt, "at the end")
    assert send(ctrl_c, ctrl_c) == send(term, ctrl_c) == (KeyboardInterrupt, "at once")
    assert signal.getsignal(ctrl_c) is signal.default_int_handler


class CtrlC(keras.callbacks.Callback):
    """Sends SIGINT to this process after the first step, which no other callback sees any more."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("undrawn")
def test_a_run_ends_within_an_epoch_or_its_validation_and_resumes_there(recipe, tmp_path, monkeypatch):
    recipe = dataclasses.replace(recipe, epochs=2, batch_size=16, validation_split="test[:37]")
    network = read_spec(NAIVE)
    train(recipe, tmp_path / "whole", spec=network)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=r"after 0 epochs and 2 steps; no epoch had finished") as ended:
        train(recipe, folder, spec=network, show=lambda *_: CtrlC())
    assert ended.type is KeyboardInterrupt
    assert (metrics(folder)["status"], saved_position(folder)) == ("interrupted", (0, 2))
    with pytest.raises(UserError, match=r"Expected strategy 'default' with 1 processes, .*; Received: 'mirrored'"):
        train(recipe, folder, spec=network, strategy="mirrored")

    def preempt_in_validation(self, epoch, logs):
        on_epoch_trained(self, epoch, logs)
        signal.raise_signal(signal.SIGTERM)

    on_epoch_trained = SaveState.on_epoch_trained
    with monkeypatch.context() as patch:
        patch.setattr(SaveState, "on_epoch_trained", preempt_in_validation)
        with pytest.raises(Preempted, match=r"after 0 epochs and 4 steps; no epoch had finished"):
            train(recipe, folder, spec=network)
    assert (metrics(folder)["status"], saved_position(folder)) == ("preempted", (0, 4))
    assert train(recipe, folder, spec=network)["epochs"] == 2
    check_equal(folder, tmp_path / "whole")

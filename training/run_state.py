"""The state of a run, from which it resumes at the step after it: what it holds, its files, and when it is saved.

A state is whole or absent. Two generations are kept, so that one that is damaged on disk falls back to the one before.
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from inception_v1 import GoogLeNet
from inception_v1.atomic_files import atomic_file
from training.callbacks import History, KeepBest
from training.data.pipeline import Position
from training.distribution.strategy import Strategy
from training.errors import Preempted, UserError
from training.interruption import Interruption
from training.run_folder import PREVIOUS_STATE, STATE, RunFolder

log = logging.getLogger(__name__)

SAVE_EVERY = "10m"  # between two states that are saved within an epoch
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
AGREEMENT = 1.0  # seconds between two questions to the other processes whether to save
DAMAGE = (  # what reading a file raises that is not what was written
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    ValueError,
    KeyError,
    EOFError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
)


@dataclasses.dataclass(frozen=True)
class Interval:
    """What lies between two states that are saved within an epoch; nothing is saved there where both are None.

    Attributes:
        seconds: at least so many.
        steps: so many.
    """

    seconds: float | None = None
    steps: int | None = None

    @classmethod
    def parse(cls, text: str | None) -> "Interval":
        """The interval of "10m", "30s", "1h", or "500" and "500 steps"; None for none. Raises UserError for others."""
        if text is None:
            return cls()
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|steps?)?\s*", text)
        number, unit = (float(found[1]), found[2]) if found else (0.0, None)
        if number > 0 and unit in UNITS:
            return cls(seconds=number * UNITS[unit])
        if number > 0 and number.is_integer():
            return cls(steps=int(number))
        raise UserError(
            f"Expected save_every to be a time as in 10m or 30s, a number of steps as in 500, or None; "
            f"Received: save_every={text!r}."
        )

    def is_over(self, seconds: float, steps: int) -> bool:
        """Whether it is over after so many seconds and steps."""
        return (self.seconds is not None and seconds >= self.seconds) or (
            self.steps is not None and steps >= self.steps
        )


DEFAULT_INTERVAL = Interval.parse(SAVE_EVERY)


@dataclasses.dataclass(frozen=True)
class State:
    """A run after one of its steps.

    Attributes:
        position: of the step that comes next.
        variables: weights, running statistics, random states and what the optimizer keeps, as of the chief.
        layout: name of the strategy, and number of processes.
        local: of each process, what its replicas have of their own (see `Strategy.read_local`), as text.
        logs: of the epoch, where its steps are all trained; else None. Also None where parameter servers trained the
            last of them while the state was copied.
        best: score and epoch of each `KeepBest`.
        history: rows of the epochs before.
    """

    position: Position
    variables: list[np.ndarray]
    layout: tuple[str, int]
    local: list[str]
    logs: dict[str, float] | None
    best: list[tuple[float, int | None]]
    history: list[dict[str, float]]


class StateFiles:
    """The two newest states of a run, in its folder. A context manager: at its end nothing is being written any more.

    Args:
        run: the folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: concurrent.futures.Future[bool] | None = None
        self._newest_is_whole = True

    def __enter__(self) -> "StateFiles":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self._writer.shutdown()

    def read(self) -> tuple[str, State]:
        """The newest state that is whole, after the name of its file.

        Raises:
            UserError: all are damaged.
        """
        damaged = []
        for path in self._run.states():
            try:
                state = read_state(path)
            except DAMAGE as error:
                damaged.append(f"{path.name} ({error or type(error).__name__})")
                continue
            self._newest_is_whole = not damaged
            for name in damaged:
                log.warning("%s is damaged; the run resumes from the state before, %s", name, path.name)
            return path.name, state
        raise UserError(
            f"Expected a state to resume from in {str(self._run.path)!r} (or --overwrite); Received: damaged files: "
            f"{', '.join(damaged)}."
        )

    def path(self, name: str) -> Path:
        """The file of that name."""
        return self._run / name

    @property
    def busy(self) -> bool:
        """Whether a state is being written."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Waits until no state is being written."""
        if self._writing is not None:
            self._writing.result()
        self._writing = None

    def write_later(self, state: State) -> None:
        """Begins to write a state while this thread continues. A failure is logged: the states before it stay."""
        self.wait()
        self._writing = self._writer.submit(self.try_to_write, state)

    def try_to_write(self, state: State) -> bool:
        """Writes a state; whether that succeeded. A failure is logged: the states before it stay."""
        try:
            self.write(state)
        except OSError as error:
            log.warning("%s; the run can resume from there", error)
            return False
        return True

    def write(self, state: State) -> None:
        """Writes a state as the newest, whole or not at all. Raises OSError."""
        about = {
            "epochs": state.position.epoch,
            "step": state.position.step,
            "best": state.best,
            "history": state.history,
            "logs": state.logs,
            "layout": state.layout,
            "local": state.local,
        }
        arrays: dict[str, Any] = {str(i): value for i, value in enumerate(state.variables)}
        with atomic_file(self._run / STATE) as part:
            with open(part, "wb") as file:
                np.savez(file, about=json.dumps(about), **arrays)
                file.flush()
                os.fsync(file.fileno())  # before the names change, since the machine may be taken away
            if self._newest_is_whole:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self._run / STATE, self._run / PREVIOUS_STATE)
        self._newest_is_whole = True


def read_state(path: Path) -> State:
    """The state in a file. Raises one of `DAMAGE` where it does not hold what was written."""
    with zipfile.ZipFile(path) as archive:
        if wrong := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {wrong} is wrong")
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        variables = [file[str(i)] for i in range(len(file.files) - 1)]
    position = Position(about["epochs"], about.get("step", 0))  # which old files, of whole epochs, lack
    name, processes = about.get("layout", ("", 0))
    best = [(score, epoch) for score, epoch in about["best"]]
    local, logs = about.get("local", []), about.get("logs")
    return State(position, variables, (name, processes), local, logs, best, about["history"])


def read_position(run: RunFolder) -> Position:
    """Where the run in a folder would resume; its start without a state. Of damaged ones the next counts."""
    for path in run.states():
        with contextlib.suppress(*DAMAGE), np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            return Position(about["epochs"], about.get("step", 0))
    return Position()


class SaveState(keras.callbacks.Callback):
    """Saves all that an interrupted run needs to resume as if nothing had happened.

    After an epoch it is called last: once the file is there, the epoch counts. Within an epoch a thread writes copies
    of the variables, so that training does not wait for the disk. Ctrl-C and SIGTERM end the run once a state is saved.
    All processes have this callback, since all must act after the same step; the chief writes.

    Args:
        files: of the run.
        distribution: what it trains on.
        interval: between two states within an epoch.
        interruption: is looked at after every step.
        steps: in an epoch.
        best: callbacks whose best score is part of the state.
        history: likewise its rows.
    """

    def __init__(
        self,
        files: StateFiles,
        distribution: Strategy,
        interval: Interval,
        interruption: Interruption,
        steps: int,
        best: list[KeepBest],
        history: History,
    ) -> None:
        super().__init__()
        self._files, self._distribution, self._interval = files, distribution, interval
        self._interruption, self._steps, self._best, self._history = interruption, steps, best, history
        self._layout, self._alone = (distribution.name, distribution.processes), distribution.processes == 1
        self._resumed: list[np.ndarray] = []  # what replicas have of their own, until an epoch begins
        self._trained: State | None = None  # the epoch's, from its last step until it counts
        self._epoch = self._since_save = self._since_agreement = 0
        self._pause = 1  # steps between two agreements
        self._saved_at = self._agreed_at = time.monotonic()

    def restore(self, model: GoogLeNet) -> State:
        """Sets the model, its built optimizer and the other callbacks as they were. All processes call it together.

        Raises:
            UserError: no state that can be read, or not the same on every process.
        """
        read = self._distribution.run_everywhere(self._read_on_chief)
        name = self._distribution.gather(read[0] if read else "")[0]
        state = read[1] if read else read_state(self._files.path(name))
        self._distribution.check_agreement({"state to resume from": dataclasses.asdict(state.position)})
        for variable, value in zip(_variables(model), state.variables, strict=True):
            variable.assign(value)
        for keep, (score, epoch) in zip(self._best, state.best, strict=True):
            keep.best, keep.best_epoch = score, epoch
        self._history.rows = state.history
        if state.layout == self._layout:
            self._resumed = _decoded(state.local[self._distribution.index])
        elif state.position.step:
            raise UserError(
                f"Expected strategy {state.layout[0]!r} with {state.layout[1]} processes, under which the run was "
                f"interrupted within an epoch; Received: {self._layout[0]!r} with {self._layout[1]}."
            )
        return state

    def _read_on_chief(self) -> tuple[str, State] | None:
        return self._files.read() if self._distribution.is_chief else None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._saved_at = self._agreed_at = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        if self._resumed:
            self._distribution.write_local(self.model, self._resumed)
            self._resumed = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._interruption.waits = True
        self._since_save += 1
        self._since_agreement += 1
        if batch + 1 == self._steps or self._since_agreement < self._pause:  # after the last `on_epoch_trained` follows
            return
        ends, saves = self._agree()
        if not ends and not saves:
            return
        step = self._distribution.synchronize(self.model, batch + 1)
        state = self._state(Position(self._epoch, step), metrics=True)
        if ends:
            self._end(state)
        self._write_later(state)

    def on_epoch_trained(self, epoch: int, logs: dict[str, Any]) -> None:
        """Is called at the end of an epoch before all that may take long."""
        self._trained = self._state(Position(epoch, self._steps), logs=logs)
        ends, saves = self._agree()
        if ends:
            self._end(self._trained)
        if saves:
            self._write_later(self._trained)

    def end_if_interrupted(self) -> None:
        """Is called now and then between `on_epoch_trained` and `on_epoch_end`. Of several processes none ends here,
        where the others would wait for it."""
        if self._interruption.error and self._alone and self._trained:
            self._end(self._trained)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert self._trained is not None
        state = dataclasses.replace(
            self._trained, position=Position(epoch + 1), logs=None, best=self._scores(), history=self._history.rows
        )
        self._trained = None
        if self._distribution.is_chief:
            self._files.wait()
            self._files.write(state)
        self._note_saved()

    def _agree(self) -> tuple[bool, bool]:
        """Whether the run is to end, and whether to save; the same on every process."""
        now, own = time.monotonic(), [int(self._interruption.error is not None), 0, 0]
        if self._distribution.is_chief:
            due = self._interval.is_over(now - self._saved_at, self._since_save) and not self._files.busy
            pause = AGREEMENT * self._since_agreement / max(now - self._agreed_at, 1e-6)
            if self._interval.steps is not None:
                pause = min(pause, self._interval.steps - self._since_save)
            own[1:] = int(due), max(1, int(pause))
        ends, saves, self._pause = (*own[:2], 1) if self._alone else self._distribution.total(own)
        self._agreed_at, self._since_agreement = now, 0
        return ends > 0, saves > 0

    def _state(self, position: Position, metrics: bool = False, logs: dict[str, Any] | None = None) -> State:
        """The state as of now. All processes call it together; only the chief's has variables."""
        local = self._distribution.gather(_encoded(self._distribution.read_local(self.model, metrics)))
        chief = self._distribution.is_chief
        variables = [np.array(variable) for variable in _variables(self.model)] if chief else []
        numbers = logs and {name: float(value) for name, value in logs.items()}
        rows = list(self._history.rows)
        return State(position, variables, self._layout, local, numbers, self._scores(), rows)

    def _scores(self) -> list[tuple[float, int | None]]:
        return [(keep.best, keep.best_epoch) for keep in self._best]

    def _write_later(self, state: State) -> None:
        if self._distribution.is_chief:
            self._files.write_later(state)
        self._note_saved()

    def _note_saved(self) -> None:
        self._saved_at, self._since_save = time.monotonic(), 0

    def _end(self, state: State) -> None:
        """Saves a state and ends the run, once that is done on every process."""
        if self._distribution.is_chief:
            self._files.wait()
            self._files.try_to_write(state)
        self._distribution.gather("saved")  # a process that ends early looks like one that died
        raise (self._interruption.error or Preempted)(describe(state.position))


def describe(position: Position) -> str:
    """How far a run has come, as an adverbial."""
    steps = f" and {position.step} steps" if position.step else ""
    return f"after {position.epoch} epochs{steps}"


def _variables(model: GoogLeNet) -> list[keras.Variable]:
    """Weights, running statistics, random states and what the optimizer keeps."""
    return [*model.variables, *model.optimizer.variables]


def _encoded(arrays: list[np.ndarray]) -> str:
    """Arrays as text; of none the empty one."""
    file = io.BytesIO()
    np.savez(file, *arrays)
    return base64.b64encode(file.getvalue()).decode() if arrays else ""


def _decoded(text: str) -> list[np.ndarray]:
    """The arrays of a text."""
    if not text:
        return []
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as file:
        return [file[f"arr_{i}"] for i in range(len(file.files))]

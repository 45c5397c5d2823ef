"""Ctrl-C and SIGTERM, which wait until a step has ended, so that its result can be saved."""

import signal
import threading
import types

from training.errors import Preempted


class Interruption:
    """Notes Ctrl-C and SIGTERM, which TensorFlow's cluster code swallows; a context manager.

    Outside the main thread it notes nothing: somebody else has the signals.

    Attributes:
        error: type of the exception that the noted signal stands for; None without one.
        waits: whether a signal waits until somebody looks at `error`. Until this is set it ends the run at once, and a
            second Ctrl-C always does.
    """

    def __init__(self) -> None:
        self.error: type[KeyboardInterrupt] | None = None
        self.waits = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self.error and error is None:
            raise self.error

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        again = number == signal.SIGINT and self.error is not None
        self.error = Preempted if number == signal.SIGTERM else KeyboardInterrupt
        if again or not self.waits:
            raise self.error

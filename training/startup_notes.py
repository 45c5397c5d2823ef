"""The notes that TensorFlow and CUDA write to stderr while they start, kept from people who did not ask for them."""

import contextlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator

LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # 0: everything; 1, 2 and 3: without notes, warnings and errors
PREFIX = rb"[%s]\d{4} \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [%s] "  # of a line of TensorFlow's log
OTHERS = rb"WARNING: All log messages before absl::InitializeLog|To enable the following instructions:"
LAST_LINES = 1.0  # seconds within which the last lines are written


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Within it TensorFlow is imported and finds its devices without the notes that TF_CPP_MIN_LOG_LEVEL excludes.

    TensorFlow itself does not heed it before its log is initialized, nor in Python. Where it is not set it becomes 3.
    All that is no line of the log still reaches stderr, and so do the log's fatal errors: they pass through a process
    of its own, which outlives a crash of this one.
    """
    level = os.environ.setdefault(LEVEL, "3")
    severities = b"IWE"[: int(level) if level.isdigit() else 0]
    if not severities or "tensorflow" in sys.modules:
        yield
        return
    if severities == b"IWE":
        logging.getLogger("tensorflow").setLevel("ERROR")  # such as what TFDS calls that is deprecated
    with without_lines(PREFIX % (severities, severities) + b"|" + OTHERS):
        yield


@contextlib.contextmanager
def without_lines(notes: bytes) -> Iterator[None]:
    """Within it lines that begin as a regular expression says do not reach stderr."""
    sys.stderr.flush()
    stderr = os.dup(2)
    process, pipe = _start_filter(re.compile(notes))
    os.dup2(pipe, 2)
    os.close(pipe)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        deadline = time.monotonic() + LAST_LINES
        while not os.waitpid(process, os.WNOHANG)[0] and time.monotonic() < deadline:
            time.sleep(0.001)


def _start_filter(notes: re.Pattern[bytes]) -> tuple[int, int]:
    """Number of a process that passes other lines than notes on to stderr, and a pipe to it."""
    there, here = os.pipe()
    if process := os.fork():
        os.close(there)
        return process, here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which reaches the whole group
    os.close(here)
    with os.fdopen(there, "rb") as lines:
        for line in lines:
            if not notes.match(line):
                os.write(2, line)
    os._exit(0)

"""Python programs in processes forked from one that has imported TensorFlow and this project, which takes 5 s."""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

from tests.helpers.blocks import all_blocks, few_blocks, have_few_blocks

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["tensorflow", "tensorflow_datasets", "sklearn.datasets", "googlenet", "training.train", "tuning.search", __name__]
)


class ForkedProcess:
    """What `subprocess.Popen` starts for `[python, "-c", CODE, *arguments]` or `[python, SCRIPT, *arguments]`, with
    those of its methods that the tests use. The process leads a group of its own, writes to a file, and has networks of
    a few blocks where this process has.

    Args:
        command: as above.
        environment: variables beside those of this process.
        output: the file; by default a new one, which `communicate` reads.
    """

    def __init__(self, command, environment, output=None):
        self._output = Path(output or tempfile.mkstemp(prefix="output")[1])
        if output is None:
            weakref.finalize(self, self._output.unlink)
        arguments = list(map(str, command[1:])), environment, self._output, have_few_blocks()
        self._process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout, self._output.read_bytes())
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self._output.read_text(errors="replace"), None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _run(arguments, environment, output, few):
    """Runs in the new process."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even where the tests run in the background
    with output.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
            stream.reconfigure(line_buffering=True)
    os.environ.update(environment)
    try:
        with few_blocks() if few else all_blocks():
            if arguments[0] == "-c":
                sys.argv = ["-c", *arguments[2:]]
                exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
            else:
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out

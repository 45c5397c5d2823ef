"""Processes that a test starts, each in its own process group, and the clusters that they form."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys

from tests.helpers import ROOT
from tests.helpers.blocks import ENTER, have_few_blocks
from tests.helpers.forked import ForkedProcess

LIMIT = 300  # seconds for any process
NOTES = re.compile("^[IWE]0000|absl::|oneDNN|WARNING:tensorflow|deprecated|eagerly", re.MULTILINE)  # of TensorFlow
FAULT = """
import os, signal, sys
import googlenet
from training import callbacks

original = callbacks.StopOnDivergence.on_train_batch_end

def send_signal(self, batch, logs=None):
    original(self, batch, logs)
    if (self._epoch, batch) == ({epoch}, 1):
        os.kill(os.getpid(), signal.{name})

callbacks.StopOnDivergence.on_train_batch_end = send_signal
sys.exit(googlenet.main(sys.argv[1:]))
"""


def free_ports(count):
    """So many ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("localhost", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def start(command, environment):
    """Starts a process as a user does, in its own process group."""
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextlib.contextmanager
def processes(commands, start=ForkedProcess):
    """Starts (command, environment) pairs, each in its own process group, and kills those that are left at the end."""
    started = [start(command, environment) for command, environment in commands]
    try:
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def command(flags, *fault):
    """The argv of `googlenet` with these flags.

    `fault` is a signal's name and the epoch (from 0) in whose second step the process sends it to itself.
    """
    if fault:
        enter = ENTER if have_few_blocks() else ""
        return [sys.executable, "-c", enter + FAULT.format(name=fault[0], epoch=fault[1]), *map(str, flags)]
    script = "tests/helpers/few_block_googlenet.py" if have_few_blocks() else "googlenet.py"
    return [sys.executable, str(ROOT / script), *map(str, flags)]


def environments(size):
    """The environment variables of each worker of a new cluster."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(size)]}
    return [
        {"PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})}
        for i in range(size)
    ]


def ended(*commands):
    """Exit status and output of the workers of a new cluster, one for each command."""
    with processes(list(zip(commands, environments(len(commands)), strict=True))) as workers:
        outputs = [worker.communicate(timeout=LIMIT)[0] for worker in workers]
        return [(worker.returncode, output) for worker, output in zip(workers, outputs)]


def done(command, environment=None, timeout=LIMIT, start=ForkedProcess):
    """The output of a command, which must end with exit status 0."""
    with processes([(command, {"PYTHONPATH": str(ROOT), **(environment or {})})], start) as (process,):
        output = process.communicate(timeout=timeout)[0]
        assert process.returncode == 0, output[-3000:]
    if str(command[1]).endswith("googlenet.py"):
        assert not NOTES.search(output), output
    return output

"""Each script runs in a process of its own, where TensorFlow has not been imported."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

SCRIPT = """
import os, sys
from training import startup_notes
with startup_notes.hidden():
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
    for severity in "IWEF":
        os.write(2, f"{severity}0000 00:00:1795.1 1 port.cc:153] {severity} is its severity\\n".encode())
    print("a line of Python", file=sys.stderr)
    {end}
print("afterwards", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("level", "shown"), [(None, "F"), ("3", "F"), ("1", "WEF"), ("0", "IWEF"), ("unknown", "IWEF")]
)
def test_only_what_the_level_excludes_is_hidden(level, shown):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    lines = run(SCRIPT.replace("{end}", ""), environment).stderr.splitlines()
    assert [line[0] for line in lines if line.endswith("severity")] == list(shown)
    assert lines[-2:] == ["a line of Python", "afterwards"]


def test_what_comes_before_a_crash_is_seen():
    done = run(SCRIPT.replace("{end}", "os.abort()"), os.environ)
    assert done.returncode < 0
    assert done.stderr.splitlines() == ["F0000 00:00:1795.1 1 port.cc:153] F is its severity", "a line of Python"]


def run(script, environment):
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

"""In a process of its own, where nothing has been imported."""

import json
import subprocess
import sys

import pytest

from tests.helpers import ROOT

SCRIPT = """
import gc, json, sys
from training import startup_imports

def collections():
    return sum(generation["collections"] for generation in gc.get_stats())

with startup_imports.without(("sklearn", "sys")):
    import sys
    try:
        import sklearn.base
        hidden = False
    except ImportError:
        hidden = True
import googlenet
before = collections()
googlenet._prepare_tensorflow()
found = {"hidden": hidden, "collections": collections() - before, "frozen": gc.get_freeze_count()}
googlenet._prepare_tensorflow()
found |= {"frozen later": gc.get_freeze_count(), "enabled": gc.isenabled()}
found["prepared"] = sorted({"keras", "tensorflow", *startup_imports.OPTIONAL} & sys.modules.keys())
import training.evaluation.classify, training.train
found["imported"] = sorted({"keras", "sklearn", "scipy.stats", "matplotlib"} & sys.modules.keys())
import matplotlib.pyplot, sklearn.cluster
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_packages_that_are_not_needed_at_the_start_can_be_imported_afterwards(found):
    assert found["hidden"]
    assert found["prepared"] == ["keras", "tensorflow"]
    assert found["imported"] == ["keras"]


def test_no_garbage_is_collected_while_tensorflow_is_imported(found):
    assert found["collections"] == 0
    assert found["frozen"] > 100_000  # objects of TensorFlow's modules, which later collections skip
    assert found["frozen later"] == found["frozen"]  # no objects of a caller who has imported TensorFlow before
    assert found["enabled"]

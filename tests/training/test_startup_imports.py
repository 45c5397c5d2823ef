"""In a process of its own, where nothing has been imported."""

import subprocess
import sys

from tests.helpers import ROOT

SCRIPT = """
import sys
from training import startup_imports
with startup_imports.without(("sklearn", "sys")):
    import sys
    try:
        import sklearn.base
    except ImportError:
        print("hidden")
import googlenet
googlenet._prepare_tensorflow()
print({"keras", "tensorflow", *startup_imports.OPTIONAL} & sys.modules.keys())
import matplotlib.pyplot, sklearn.cluster
"""


def test_packages_that_are_hidden_can_be_imported_afterwards():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "hidden"
    assert sorted(eval(second)) == ["keras", "tensorflow"]

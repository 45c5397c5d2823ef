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
import training.evaluation.classify, training.train
print({"keras", "sklearn", "scipy.stats", "matplotlib"} & sys.modules.keys())
import matplotlib.pyplot, sklearn.cluster
"""


def test_packages_that_are_not_needed_at_the_start_can_be_imported_afterwards():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hidden, prepared, imported = done.stdout.splitlines()
    assert hidden == "hidden"
    assert sorted(eval(prepared)) == ["keras", "tensorflow"]
    assert eval(imported) == {"keras"}

"""What an installation brings: little without extras, all with them, and the name of the extra that is missing."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import googlenet
from inception_v1.extras import MODULES, extra
from tests.helpers import ROOT, wheels
from tests.oracles import torchvision
from training.errors import UserError
from training.export.web import fetch

PACKAGES = ("inception_v1", "training", "tuning", "interpretability")
PARTS = ("train", "tune", "export", "interpret")
SOURCES = [ROOT / "googlenet.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
CORE = ("keras", "tensorflow", "numpy", "onnx", "safetensors", "lazy_loader", "tyro")
WITH_CORE = ("google", "wrapt", "rich", "grpc")  # which TensorFlow and Keras require

NETWORK = """
import numpy as np
from inception_v1 import build_googlenet, decode_predictions, preprocess_input

model = build_googlenet(weights=sys.argv[1], input_shape=(64, 64, 3))
model.compile("sgd", run_eagerly=True)
images = preprocess_input(np.zeros((2, 64, 64, 3)), "torchvision")
history = model.fit(images, np.array([3, 5]), verbose=0).history
assert np.isfinite(history["loss"]).all()
assert len(decode_predictions(model(images), "torchvision")) == 2
"""
MISSING = """
import contextlib, io, json
import googlenet

found = {}
for package, name in json.loads(sys.argv[2]):
    try:
        exec(f"from {package} import {name}")
    except ImportError as error:
        found[f"{package}.{name}"] = str(error)
for command in json.loads(sys.argv[3]):
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        assert googlenet.main(command) == 2
    found[" ".join(command)] = stream.getvalue()
print(json.dumps(found))
"""
IMPORTS = {("training", "train"): "train", ("training", "evaluate"): "train", ("training", "export"): "export"}
IMPORTS |= {("tuning", "search"): "tune", ("tuning", "GoogLeNetHyperModel"): "tune"}
COMMANDS = {("train",): "train", ("evaluate", "run"): "train", ("predict", "net.keras", "a.png"): "train"}
COMMANDS |= {("tune",): "tune", ("export", "run"): "export", ("summary", "--draw", "net.svg"): "interpret"}
COMMANDS |= {("visualize", "run", "--layer", "inception_4d"): "interpret"}
COMMANDS |= {("predict", "--server", "grpc://localhost:1", "a.png"): "export"}
EVERYTHING = """
import importlib, pkgutil
import inception_v1, interpretability, training, tuning

for package in (inception_v1, training, tuning, interpretability):
    for name in package.__all__:
        getattr(package, name)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    return wheels.build(tmp_path_factory.mktemp("distributions"))


@pytest.fixture(scope="module")
def wheel(distributions):
    return distributions[1]


def test_without_extras_the_network_trains_and_what_is_missing_is_named(wheel, tmp_path):
    """One process: most of its time is the import of TensorFlow."""
    place = wheels.environment(wheel, tmp_path / "core")
    weights = torchvision.write(tmp_path)
    output = wheels.run(place, NETWORK + MISSING, weights, json.dumps([*IMPORTS]), json.dumps([*COMMANDS]))
    messages = json.loads(output.splitlines()[-1])
    expected = {".".join(names): name for names, name in IMPORTS.items()}
    expected |= {" ".join(command): name for command, name in COMMANDS.items()}
    assert messages.keys() == expected.keys()
    for what, message in messages.items():
        assert f"pip install 'googlenet-keras[{expected[what]}]'" in message, what
        assert message.strip().count("\n") == 0


def test_with_all_extras_everything_imports(wheel, tmp_path):
    wheels.run(wheels.environment(wheel, tmp_path / "all", ["all"]), EVERYTHING)


def test_at_most_five_libraries_come_with_tensorflow_and_keras(wheel):
    assert len(wheels.requirements(wheel).keys() - {"tensorflow", "keras"}) <= 5


def test_all_has_what_every_optional_part_has(wheel):
    assert wheels.requirements(wheel, ["all"]).keys() == wheels.requirements(wheel, PARTS).keys()
    for extra_name in ("test", "docs", "bench"):
        assert wheels.requirements(wheel, ["all"]).keys() <= wheels.requirements(wheel, [extra_name]).keys()


def test_every_library_that_is_imported_comes_with_the_package_or_an_extra():
    known = {
        *CORE,
        *WITH_CORE,
        *PACKAGES,
        *sys.stdlib_module_names,
        *(name for names in MODULES.values() for name in names),
    }
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= known, path


def test_extras_bring_the_libraries_that_they_are_named_for(wheel):
    owners = importlib.metadata.packages_distributions()
    for name, modules in {**MODULES, "": CORE}.items():
        required = wheels.requirements(wheel, [name])
        for module in modules:
            assert {wheels.normalized(owner) for owner in owners[module]} & required.keys(), (name, module)


def test_a_missing_library_that_no_extra_brings_is_a_defect():
    with pytest.raises(ModuleNotFoundError, match="no_such_library"), extra("train"):
        import no_such_library  # noqa: F401


def test_a_missing_backend_is_named_whatever_asked_for_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(UserError, match=re.escape("pip install 'googlenet-keras[jax]'")), extra("train"):
        import jax  # noqa: F401


def test_the_distributions_are_fit_for_an_index_and_licensed(distributions):
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *distributions], check=False)
    assert done.returncode == 0
    with zipfile.ZipFile(distributions[1]) as archive:
        files = {name.partition("/")[2]: name for name in archive.namelist()}
        metadata = archive.read(files["METADATA"]).decode()
        assert archive.read(files["licenses/LICENSE"]) == (ROOT / "LICENSE").read_bytes()
        assert b"Microsoft" in archive.read(files["licenses/training/export/web/onnxruntime_license.txt"])
        page = {name for name in archive.namelist() if name.startswith("training/export/web/")}
    assert "\nLicense-Expression: Apache-2.0 AND MIT\n" in metadata
    assert {f"training/export/web/{name}" for name in ("page/index.html", "page/app.js", "run_in_node.mjs")} < page
    if fetch.is_fetched():
        built = {path.relative_to(ROOT).as_posix() for path in fetch.FOLDER.rglob("*") if path.is_file()}
        assert len(built) > 20
        assert built < page
    assert {"py.typed", "__init__.pyi", "imagenet_classes.txt"} <= {Path(name).name for name in files.values()}


def test_the_citation_has_the_version_of_the_package(wheel):
    version = wheel.name.split("-")[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_version_is_printed_without_importing_keras(capsys, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert googlenet.main(["--version"]) == 0
    names = ("googlenet-keras", "tensorflow", "keras", "backend jax")
    versions = [importlib.metadata.version(name.split()[-1]) for name in names]
    assert capsys.readouterr().out.splitlines() == [f"{a} {b}" for a, b in zip(names, versions)]


def test_the_command_alone_prints_its_help_as_an_error(capsys):
    assert googlenet.main([]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert "import-weights" in written.err

"""Imports point one way, follow no circle, and load no more than they must: followed through every file and package."""

import ast
import functools
import graphlib
import subprocess
import sys

import pytest

from tests.helpers import ROOT

PACKAGES = ("inception_v1", "training", "tuning", "interpretability", "benchmarks")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
} | {"googlenet": ROOT / "googlenet.py"}

# What each part of a package may import of it, circles apart: parts to the left of it in its line, and those named.
ORDER = {
    "inception_v1": [
        {"errors", "registration"},
        {"spec", "atomic_files", "keras_home", "keras_patches", "extras"},
        {"cost", "dependencies", "layers", "tensorflow_layers", "losses", "preprocessing", "layout"},
        {"model", "summary"},
        {"weights", "fold_batchnorm", "slimming"},
        {"builder"},
    ],
    "training": [
        {"errors", "precision", "startup_notes", "startup_imports", "environment"},
        {"recipe", "serving_protocol", "interruption"},
        {"presets", "transfer", "distillation"},
        {"run_folder", "optimizer", "data"},
        {"run_images", "trained_network"},
        {"evaluation", "task", "serving_client", "distribution"},
        {"report", "export", "callbacks", "run_state"},
        {"train"},
    ],
    "tuning": [
        {"results", "budget", "pareto", "latency_table"},
        {"space", "keras_tuner_patches", "importance", "slim_settings", "latency", "correlations", "rank_correlation"},
        {
            *("oracles", "hypermodel", "allocation", "training_examples", "shared_settings", "sliced_network"),
            "latency_measurement",
        },
        {"width_proposals", "criteria", "sandwich", "slice_scores", "pareto_oracles", "search_latency"},
        {"trials", "report", "sensitivity"},
        {"shared_trials", "slim"},
        {"search_folder"},
        {"search"},
    ],
    "interpretability": [
        {"gradients", "relu_gradient", "colors", "interpolation", "layer_names", "progress", "image_files", "overlays"},
        {"channels", "drawing"},
        {"saliency_patches"},
        {"parameterizations", "objectives", "page", "receptive_field", "atlas_layout"},
        {"transforms", "network", "examples"},
        {"rendering", "example_files", "attribution", "activation_samples", "gates"},
        {"checks", "numbered_rendering", "branches"},
        {"specialization", "atlas", "caricatures", "factors", "channel_rendering"},
        {"branch_figures", "atlas_files", "layer_figures"},
        {"visualize", "explain", "explain_split"},
    ],
}
OTHERS = {  # packages of this project that a package may import
    "inception_v1": set(),
    "training": {"inception_v1"},
    "tuning": {"inception_v1", "training"},
    "interpretability": {"inception_v1", "training"},
    "benchmarks": {"inception_v1", "training", "tuning", "interpretability", "googlenet", "tests"},
    "googlenet": {"inception_v1", "training", "tuning", "interpretability"},
}


@functools.cache
def imported(module, lazily=True):
    """Modules of this project that a module's own text imports; without `lazily` only those that importing it does."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    nodes = ast.walk(tree) if lazily else at_import(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            found |= {name} if name else set()
    if lazily and (public := MODULES[module].with_suffix(".pyi")).is_file():  # what the package imports on first use
        for node in ast.walk(ast.parse(public.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found |= {f"{module}.{name}" for name in names}
    return found - {module}


def at_import(node):
    """Nodes that run when a module is imported: not those of functions, nor those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import(child)


def part(module):
    """The file or folder of a package that a module lies in."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("lazily", [False, True])
def test_no_circle_of_imports_anywhere(lazily):
    """Between files; a package counts as importing what its public names come from."""
    graph = {module: imported(module, lazily) for module in MODULES}
    if lazily:  # a module may import the public names of its own package's folder, which name that module itself
        graph = {
            module: {name for name in names if not (name in PACKAGES and module.startswith(f"{name}."))}
            for module, names in graph.items()
        }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("package", ORDER)
def test_every_part_of_a_package_has_its_place(package):
    parts = {part(module) for module in MODULES if module.startswith(f"{package}.")}
    assert parts == set().union(*ORDER[package])


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] in ORDER and "." in m])
def test_imports_point_one_way(module):
    package = module.split(".")[0]
    order = ORDER[package]
    level = next(number for number, parts in enumerate(order) if part(module) in parts)
    lower = set().union(*order[: level + 1])
    for name in imported(module):
        top = name.split(".")[0]
        if top == package:
            assert part(name) in lower | {""}, f"{module} imports {name}"
        else:
            assert top in OTHERS[package], f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] not in ORDER])
def test_measurements_and_the_command_line_import_what_they_may(module):
    allowed = OTHERS[module.split(".")[0]] | {module.split(".")[0]}
    assert {name.split(".")[0] for name in imported(module)} <= allowed


def loaded(code, *names, **environment):
    """Which of these modules a new process has imported after it ran some code."""
    program = f"import sys\n{code}\nprint(sorted({set(names)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return ast.literal_eval(done.stdout.splitlines()[-1])


def test_what_needs_no_keras_loads_none():
    """The command line up to its arguments, recipes, and spaces with their samples and costs."""
    code = (
        "import googlenet, training.recipe, training.presets, training.distribution.launch\n"
        "assert 'numpy' not in sys.modules\n"
        "import tuning.space, tuning.budget, inception_v1.cost\n"
        "from inception_v1.spec import Spec\n"
        "space = tuning.space.Space('blocks', Spec('paper'), training.recipe.Recipe())\n"
        "assert len(space.sample(10, 0)) == 10"
    )
    assert loaded(code, "keras", "tensorflow", "keras_tuner", "matplotlib", "jax", "torch") == []


def test_keras_finds_the_classes_though_importing_the_package_imports_neither():
    code = (
        "import inception_v1\n"
        "assert not {'keras', 'inception_v1.model'} & set(sys.modules)\n"
        "import keras\n"
        "network = keras.saving.get_registered_object('inception_v1>GoogLeNet')\n"
        "config = {'variant': 'plain', 'input_shape': (32, 32, 1), 'width_multiplier': 0.1, 'aux': False}\n"
        "assert type(network.from_config(config)) is inception_v1.GoogLeNet"
    )
    assert loaded(code, "inception_v1.model", TF_CPP_MIN_LOG_LEVEL="3") == ["inception_v1.model"]


def test_every_class_that_keras_saves_is_found_by_its_module():
    import keras

    from inception_v1 import registration

    for module in registration.SERIALIZABLE:
        __import__(module)
    known = {name for names in registration.SERIALIZABLE.values() for name in names}
    found = keras.saving.get_custom_objects()
    own = {name.removeprefix("inception_v1>"): one for name, one in found.items() if name.startswith("inception_v1>")}
    assert set(own) == known
    for module, names in registration.SERIALIZABLE.items():
        assert {own[name].__module__ for name in names} == {module}


def test_public_names_hide_the_modules_they_are_called_like():
    """`training.train` is the function, also after its module was imported."""
    import importlib
    import inspect

    import inception_v1
    import interpretability
    import training
    import tuning

    for package in (inception_v1, training, tuning, interpretability):
        for name in package.__all__:
            module = getattr(package, name)
            if f"{package.__name__}.{name}" in MODULES and not inspect.ismodule(module):
                importlib.import_module(f"{package.__name__}.{name}")
                assert callable(getattr(package, name)), name
                assert getattr(package, name) is module

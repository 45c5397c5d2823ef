"""What the packages promise to type checkers: annotations on all that is public, and the markers that announce them."""

import ast
import tomllib

import pytest

from tests.helpers import ROOT

PACKAGES = ("inception_v1", "training", "tuning", "interpretability")
MODULES = [ROOT / "googlenet.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]


def public_functions(node, owner=""):
    """(qualified name, definition, whether a method) of the public functions, and the methods of public classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            if not child.name.startswith("_"):
                yield from public_functions(child, f"{owner}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            special = child.name.startswith("__") and child.name.endswith("__")
            if special or not child.name.startswith("_"):
                yield f"{owner}{child.name}", child, isinstance(node, ast.ClassDef)
        elif not isinstance(child, ast.Lambda):  # a condition, or another statement that definitions are in
            yield from public_functions(child, owner)


def missing_annotations(name, function, is_method):
    """What a function leaves out, as "name(parameter)" or "name -> "."""
    arguments = function.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list)
    if is_method and not static:
        parameters = parameters[1:]  # self or cls
    found = [f"{name}({one.arg})" for one in parameters if one is not None and one.annotation is None]
    return found + ([f"{name} -> "] if function.returns is None else [])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_public_functions_annotate_every_parameter_and_their_result(path):
    functions = public_functions(ast.parse(path.read_text("utf-8")))
    assert [text for function in functions for text in missing_annotations(*function)] == []


def test_missing_annotations_are_found():
    source = """
class Public:
    def method(self, a, *b, c: int = 1, **d) -> None: ...
    def _private(self, a): ...
    @staticmethod
    def static(a): ...
    @property
    def size(self): ...
class _Private:
    def method(self, a): ...
if True:
    def function(a: int, /, b): ...
"""
    functions = list(public_functions(ast.parse(source)))
    assert [text for function in functions for text in missing_annotations(*function)] == [
        *("Public.method(a)", "Public.method(b)", "Public.method(d)", "Public.static(a)", "Public.static -> "),
        *("Public.size -> ", "function(b)", "function -> "),
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_the_marker_of_typed_packages(package):
    assert (ROOT / package / "py.typed").is_file()


def test_mypy_accepts_no_function_without_types():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]
    assert set(settings["packages"]) >= set(PACKAGES)
    assert settings["modules"] == ["googlenet"]
    assert settings["disallow_untyped_defs"]
    assert settings["check_untyped_defs"]
    assert {override["module"] for override in settings["overrides"]} == {"benchmarks.*"}

"""Names the extra of this package that brings a library which is not installed."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import lazy_loader

from inception_v1.errors import MissingExtraError

MODULES = {  # what each extra of setup.py brings and this package imports
    "train": (
        *("tensorflow_datasets", "importlib_resources", "sklearn", "scipy", "matplotlib", "PIL", "filelock"),
        *("tensorboard", "jinja2"),
    ),
    "tune": ("keras_tuner",),
    "export": ("tf2onnx", "onnxruntime", "ai_edge_litert", "tensorflow_serving"),
    "interpret": ("matplotlib", "PIL", "jinja2", "saliency", "skimage", "sklearn", "umap"),
    "jax": ("jax",),
}


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Names the extra `name` where what is imported inside comes with an extra and is not installed.

    Raises:
        MissingExtraError: such a library is missing. The extra is "jax" where that is the library.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if not any(module in modules for modules in MODULES.values()):
            raise
        name = "jax" if module in MODULES["jax"] else name
        raise MissingExtraError(
            f"Expected the extra [{name}], which pip install 'googlenet-keras[{name}]' adds; "
            f"Received: an installation without {module}."
        ) from None


def check_installed(name: str) -> None:
    """Raises MissingExtraError where a library of the extra `name` is not installed; none of them is imported."""
    with extra(name):
        for module in MODULES[name]:
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(name=module)


def public_names(
    package: str, file: str, name: str, **others: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose public names, those of its `__init__.pyi`, are imported
    on first use and come with an extra.

    Args:
        package, file: the package's `__name__` and `__file__`.
        name: of the extra.
        **others: public name to the extra that it comes with instead.
    """
    load, names, public = lazy_loader.attach_stub(package, file)

    def load_with_extra(public_name: str) -> Any:
        with extra(others.get(public_name, name)):
            return load(public_name)

    return load_with_extra, names, public

"""Names the extra of this package that brings a library which is not installed."""

import contextlib
from collections.abc import Iterator

from inception_v1.errors import MissingExtraError

MODULES = {  # what each extra of setup.py brings and this package imports
    "train": (
        *("tensorflow_datasets", "importlib_resources", "sklearn", "scipy", "matplotlib", "PIL", "filelock"),
        *("tensorboard", "jinja2"),
    ),
    "tune": ("keras_tuner",),
    "export": ("tf2onnx", "onnxruntime", "ai_edge_litert", "tensorflow_serving"),
    "interpret": ("matplotlib", "PIL", "jinja2", "saliency", "skimage"),
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

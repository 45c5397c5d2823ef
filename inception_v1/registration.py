"""Lets Keras find this package's classes in saved files after `import inception_v1`, which imports neither of them."""

import importlib
from typing import Any

import wrapt

SERIALIZABLE = {  # what `keras.saving.register_keras_serializable` registers in each module
    "inception_v1.layers": ("AdaptiveAveragePooling2D", "LocalResponseNormalization"),
    "inception_v1.losses": ("Crossentropy", "TopKAccuracy"),
    "inception_v1.model": ("GoogLeNet",),
    "inception_v1.tensorflow_layers": ("BatchNormalization", "Conv2D", "MaxPooling2D", "ReLU", "ZeroPadding2D"),
}


class DeferredClass:
    """Stands in Keras' registry for a class until its module is imported, which replaces it there."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def from_config(self, *arguments: Any, **keywords: Any) -> Any:
        """Imports the class and calls its `from_config`."""
        return getattr(importlib.import_module(self._module), self._name).from_config(*arguments, **keywords)


def register_on_import_of_keras() -> None:
    """Registers a `DeferredClass` for each of `SERIALIZABLE` as soon as something has imported Keras."""
    wrapt.register_post_import_hook(_register, "keras")


def _register(keras: Any) -> None:
    registry = keras.saving.get_custom_objects()
    for module, names in SERIALIZABLE.items():
        for name in names:
            registry.setdefault(f"inception_v1>{name}", DeferredClass(module, name))

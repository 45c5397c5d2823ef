from . import objectives, parameterizations, transforms
from .attribution import Attribution, Explainer, attribute
from .rendering import Renderer, Rendering, render

__all__ = [
    "Attribution",
    "Explainer",
    "Renderer",
    "Rendering",
    "attribute",
    "objectives",
    "parameterizations",
    "render",
    "transforms",
]

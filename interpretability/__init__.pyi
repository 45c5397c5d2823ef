from . import objectives, parameterizations, transforms
from .rendering import Renderer, Rendering, render

__all__ = ["Renderer", "Rendering", "objectives", "parameterizations", "render", "transforms"]

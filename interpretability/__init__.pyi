from . import objectives, parameterizations, transforms
from .atlas import Atlas, AtlasSettings, atlas
from .attribution import Attribution, Explainer, attribute
from .caricatures import caricature, feature_inversion
from .factors import Factors, factor_icons, factorize
from .rendering import Renderer, Rendering, render

__all__ = [
    "Atlas",
    "AtlasSettings",
    "Attribution",
    "Explainer",
    "Factors",
    "Renderer",
    "Rendering",
    "atlas",
    "attribute",
    "caricature",
    "factor_icons",
    "factorize",
    "feature_inversion",
    "objectives",
    "parameterizations",
    "render",
    "transforms",
]

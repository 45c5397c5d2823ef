from . import objectives, parameterizations, transforms
from .atlas import Atlas, AtlasSettings, atlas
from .attribution import Attribution, Explainer, attribute
from .branches import BranchContributions, BranchExplainer, branch_contributions
from .caricatures import caricature, feature_inversion
from .factors import Factors, factor_icons, factorize
from .rendering import Renderer, Rendering, render
from .specialization import (
    Specialization,
    SplitContributions,
    ablations_of_split,
    contributions_of_split,
    specialization,
)

__all__ = [
    "Atlas",
    "AtlasSettings",
    "Attribution",
    "BranchContributions",
    "BranchExplainer",
    "Explainer",
    "Factors",
    "Renderer",
    "Rendering",
    "Specialization",
    "SplitContributions",
    "ablations_of_split",
    "atlas",
    "attribute",
    "branch_contributions",
    "caricature",
    "contributions_of_split",
    "factor_icons",
    "factorize",
    "feature_inversion",
    "objectives",
    "parameterizations",
    "render",
    "specialization",
    "transforms",
]

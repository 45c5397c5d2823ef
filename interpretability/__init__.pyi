from . import objectives, parameterizations, transforms
from .attribution import Attribution, Explainer, attribute
from .branches import BranchContributions, BranchExplainer, branch_contributions
from .rendering import Renderer, Rendering, render
from .specialization import (
    Specialization,
    SplitContributions,
    ablations_of_split,
    contributions_of_split,
    specialization,
)

__all__ = [
    "Attribution",
    "BranchContributions",
    "BranchExplainer",
    "Explainer",
    "Renderer",
    "Rendering",
    "Specialization",
    "SplitContributions",
    "ablations_of_split",
    "attribute",
    "branch_contributions",
    "contributions_of_split",
    "objectives",
    "parameterizations",
    "render",
    "specialization",
    "transforms",
]

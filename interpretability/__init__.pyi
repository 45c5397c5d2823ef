from . import objectives, parameterizations, transforms
from .attribution import Attribution, Explainer, attribute
from .branches import BranchContributions, BranchExplainer, branch_contributions
from .rendering import Renderer, Rendering, render
from .specialization import Specialization, specialization

__all__ = [
    "Attribution",
    "BranchContributions",
    "BranchExplainer",
    "Explainer",
    "Renderer",
    "Rendering",
    "Specialization",
    "attribute",
    "branch_contributions",
    "objectives",
    "parameterizations",
    "render",
    "specialization",
    "transforms",
]

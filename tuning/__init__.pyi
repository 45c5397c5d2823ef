from .budget import Budget
from .hypermodel import GoogLeNetHyperModel
from .search import search
from .slim import slim
from .slim_settings import SlimSettings
from .space import Space
from .width_proposals import CorrelatedWidths, correlated_widths

__all__ = [
    "Budget",
    "CorrelatedWidths",
    "GoogLeNetHyperModel",
    "SlimSettings",
    "Space",
    "correlated_widths",
    "search",
    "slim",
]

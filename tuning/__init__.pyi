from .budget import Budget
from .hypermodel import GoogLeNetHyperModel
from .search import search
from .shared_settings import SharedSettings
from .slim import slim
from .slim_settings import SlimSettings
from .space import Space
from .width_proposals import CorrelatedWidths, correlated_widths

__all__ = [
    "Budget",
    "CorrelatedWidths",
    "GoogLeNetHyperModel",
    "SharedSettings",
    "SlimSettings",
    "Space",
    "correlated_widths",
    "search",
    "slim",
]

from .budget import Budget
from .hypermodel import GoogLeNetHyperModel
from .latency_measurement import measure_latency
from .latency_table import LatencyTable, read_latency_table
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
    "LatencyTable",
    "SharedSettings",
    "SlimSettings",
    "Space",
    "correlated_widths",
    "measure_latency",
    "read_latency_table",
    "search",
    "slim",
]

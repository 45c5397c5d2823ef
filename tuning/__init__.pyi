from .budget import Budget
from .hypermodel import GoogLeNetHyperModel
from .search import search
from .slim import slim
from .slim_settings import SlimSettings
from .space import Space

__all__ = ["Budget", "GoogLeNetHyperModel", "SlimSettings", "Space", "search", "slim"]

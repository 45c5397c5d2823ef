from .budget import Budget
from .hypermodel import GoogLeNetHyperModel
from .search import search
from .space import Space

__all__ = ["Budget", "GoogLeNetHyperModel", "Space", "search"]

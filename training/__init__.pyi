from .errors import UserError
from .evaluation.evaluate import evaluate
from .export.export import export
from .recipe import Recipe
from .train import train
from .transfer import fine_tune

__all__ = ["Recipe", "UserError", "evaluate", "export", "fine_tune", "train"]

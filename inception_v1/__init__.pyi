from .builder import build_googlenet
from .cost import Cost, cost
from .errors import UserError
from .model import GoogLeNet
from .preprocessing import decode_predictions, preprocess_input
from .spec import BLOCKS, VARIANTS, Spec, Widths
from .weights.export import export_weights
from .weights.loading import import_weights, load_weights

__all__ = [
    "BLOCKS",
    "VARIANTS",
    "Cost",
    "GoogLeNet",
    "Spec",
    "UserError",
    "Widths",
    "build_googlenet",
    "cost",
    "decode_predictions",
    "export_weights",
    "import_weights",
    "load_weights",
    "preprocess_input",
]

"""GoogLeNet (Inception v1) for Keras 3, exact to the paper and to each published family of weights."""

from inception_v1.cost import Cost, cost
from inception_v1.model import GoogLeNet, build_googlenet
from inception_v1.preprocessing import decode_predictions, preprocess_input
from inception_v1.spec import BLOCKS, VARIANTS, Spec, Widths
from inception_v1.weights import export_weights, import_weights, load_weights

__all__ = [
    "BLOCKS",
    "VARIANTS",
    "Cost",
    "GoogLeNet",
    "Spec",
    "Widths",
    "build_googlenet",
    "cost",
    "decode_predictions",
    "export_weights",
    "import_weights",
    "load_weights",
    "preprocess_input",
]

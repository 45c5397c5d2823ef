import numpy as np
import pytest


@pytest.fixture
def classes():
    return ["ant", "bee", "cow"]


@pytest.fixture
def predictions():
    """Predictions for four images of the classes, of which two are right."""
    from training.evaluation.metrics import Predictions

    rows = [[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1]]
    return Predictions({"main": np.array(rows, "float32")}, np.array([0, 1, 2, 2]))

import pytest

from training.recipe import Recipe


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs.*above zero; Received: epochs=0"),
        ({"batch_size": -1}, "batch_size"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"label_smoothing": 1.0}, "label_smoothing.*below 1"),
        ({"weight_decay": -1e-4}, "weight_decay.*zero or more"),
        ({"validation_fraction": 0.0}, "validation_fraction"),
        ({"average": 1.0}, "average.*or None"),
        ({"erase": 1.5}, "erase.*from 0 to 1"),
        ({"schedule": "sine"}, "schedule to be one of 'cosine'"),
        ({"precision": "float8"}, "precision to be one of 'float32'"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)

"""Cross-entropy and top-k accuracy of every kind of label that GoogLeNet trains on."""

from typing import Any

import keras
from keras import ops

from inception_v1.errors import UserError


@keras.saving.register_keras_serializable(package="inception_v1")
class Crossentropy(keras.losses.Loss):
    """Cross-entropy of integer `(batch,)`, `(batch, 1)` or one-hot (or soft) `(batch, classes)` labels.

    Args:
        from_logits: whether predictions are logits rather than probabilities.
        label_smoothing: fraction of the label's mass that is spread evenly over all classes.
    """

    def __init__(
        self, from_logits: bool = False, label_smoothing: float = 0.0, name: str = "crossentropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if not _is_one_hot(y_true, y_pred):
            labels = _as_integers(y_true)
            if not self.label_smoothing:
                return keras.losses.sparse_categorical_crossentropy(labels, y_pred, from_logits=self.from_logits)
            y_true = ops.one_hot(labels, y_pred.shape[-1])
        return keras.losses.categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        config = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="inception_v1")
class TopKAccuracy(keras.metrics.MeanMetricWrapper):
    """Fraction of images whose label is among the `k` best scores; takes the labels that `Crossentropy` takes.

    A label that ties for the last place does not count, and neither do NaN scores, so that a network with
    constant or broken output does not look perfect.
    """

    def __init__(self, k: int = 1, name: str = "accuracy", dtype: str | None = None) -> None:
        super().__init__(in_top_k, name=name, dtype=dtype, k=k)
        self.k = k

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "k": self.k}


def in_top_k(y_true: Any, y_pred: Any, k: int) -> Any:
    """1.0 for each image whose label (as `Crossentropy` takes it) is among the `k` best scores, else 0.0."""
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    one_hot = _is_one_hot(y_true, y_pred)
    labels = ops.argmax(y_true, axis=-1) if one_hot else _as_integers(y_true)
    score = ops.take_along_axis(y_pred, ops.expand_dims(ops.cast(labels, "int32"), -1), axis=-1)  # (batch, 1)
    not_below = ops.logical_not(y_pred < score)  # (batch, classes), the label's own score included
    return ops.cast(ops.sum(ops.cast(not_below, "int32"), axis=-1) <= k, "float32")


def _is_one_hot(y_true: Any, y_pred: Any) -> bool:
    shape, classes = tuple(y_true.shape), y_pred.shape[-1]
    if len(shape) == 1 or shape[1:] == (1,):
        return False
    if len(shape) == 2 and shape[1] == classes:
        return True
    raise UserError(
        f"Expected labels of shape (batch,), (batch, 1) or one-hot (batch, {classes}); Received: shape {shape}."
    )


def _as_integers(y_true: Any) -> Any:
    return ops.cast(ops.reshape(y_true, (-1,)), "int32")

"""`build_googlenet`, the `GoogLeNet` model class, and the loss and metrics that its heads share."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from inception_v1 import keras_patches as multiworker
from inception_v1.layers import (
    AdaptiveAveragePooling2D,
    BatchNormalization,
    Conv2D,
    LocalResponseNormalization,
    MaxPooling2D,
    ReLU,
    ZeroPadding2D,
)
from inception_v1.spec import (
    AUX_CONV,
    AUX_DENSE,
    AUX_GRID,
    AUX_TAPS,
    LOSS_WEIGHTS,
    LRN,
    BatchNorm,
    Conv,
    Inception,
    MaxPool,
    ResponseNorm,
    Row,
    Spec,
    Widths,
    check_choice,
)


def build_googlenet(
    variant: str | None = None,
    *,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int | None = None,
    aux: bool = True,
    include_top: bool = True,
    pooling: str | None = None,
    stem: str = "imagenet",
    widths: Mapping[str, Widths | tuple[int, int, int, int, int, int]] | None = None,
    width_multiplier: float = 1.0,
    reduction: bool = True,
    dropout: float | tuple[float, float] | None = None,
    weights: str | os.PathLike | None = None,
    classifier_activation: str | None = "softmax",
    lrn: LRN | tuple[int, float, float, float] | None = None,
    pixels: str | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "googlenet",
) -> "GoogLeNet":
    """Builds GoogLeNet (Inception v1) with its main and two auxiliary classifiers.

    Args:
        variant: the family: "paper" (= Caffe), "batchnorm", "plain" (no normalisation), "torchvision", "slim",
            "onnx_zoo" or "inception5h". None: the family of `weights`, or the paper's.
        input_shape: (height, width, channels) in pixels, always channels last. Height and width may be None where
            nothing after them is flattened: without the 5x5/3 auxiliary heads.
        classes: number of classes; None for the family's own (1000, slim 1001, inception5h 1008).
        aux: whether to build the auxiliary heads "aux1" (on block 4a) and "aux2" (on 4d).
        include_top: False leaves out every head; the output is then one tensor of features.
        pooling: of the features without a top: None (the map), "avg" or "max" (one vector an image).
        stem: "imagenet" (halves the image three times before block 3a) or "small" (once, for 28-64 px images).
        widths: block name ("3a" ... "5b") to six channel counts in the order of `spec.Widths`. Blocks not named
            keep the family's. Explicit numbers are final: `width_multiplier` leaves them alone.
        width_multiplier: scales every other convolution and the auxiliary dense layers, rounded to multiples of 8.
        reduction: False builds the naive module without 1x1 reductions and projections (Figure 2a).
        dropout: rate in [0, 1) before the main classifier, or a pair (main, auxiliary); None for the family's.
        weights: a file in any format that `load_weights` reads, or published weights by name, downloaded once:
            "torchvision" or "imagenet" (the same), "caffe", "slim". None for random weights.
        classifier_activation: "softmax", or None for logits.
        lrn: (size, alpha, beta, k) of the response normalisation (see `LocalResponseNormalization`); None: as in
            `weights` where it says so (inception5h), or the family's.
        pixels: pixel convention of the input, a key of `spec.PIXELS`; None: the family's. Kept with the
            model, which takes pixels already normalised.
        class_names: names of the classes in label order, kept with the model.
        name: of the model.

    Returns:
        A `GoogLeNet`. With a top it returns a dict of the heads, each `(batch, classes)` in float32.

    Raises:
        ValueError: an argument is out of range, the input is smaller than the body can take, or `weights` do not
            load (see `load_weights`).

    Source: Szegedy et al., "Going deeper with convolutions", arXiv 1409.4842, section 5 and Table 1.
    """
    arguments = {
        "input_shape": input_shape,
        "classes": classes,
        "aux": aux,
        "include_top": include_top,
        "pooling": pooling,
        "stem": stem,
        "widths": widths,
        "width_multiplier": width_multiplier,
        "reduction": reduction,
        "dropout": dropout,
        "classifier_activation": classifier_activation,
        "lrn": lrn,
        "pixels": pixels,
        "class_names": class_names,
        "name": name,
    }
    if weights is None:
        return GoogLeNet(variant or "paper", **arguments)
    from inception_v1.weights import load, read

    published = read(weights)
    model = GoogLeNet(variant or published.variant or "paper", **arguments | {"lrn": lrn or published.lrn})
    load(model, published)
    return model


@keras.saving.register_keras_serializable(package="inception_v1")
class GoogLeNet(keras.Model):
    """GoogLeNet as a functional model that trains on one label per image.

    Takes the arguments of `build_googlenet`, less `weights`; its config is those arguments. `compile(optimizer)`
    alone sets the cross-entropy of each head, the paper's loss weights and top-1 and top-5 accuracy. `fit`,
    `evaluate`, `train_on_batch` and `test_on_batch` take integer `(batch,)` or `(batch, 1)` or one-hot
    `(batch, classes)` labels for all heads at once, or a dict with one entry per head.

    Attributes:
        spec: the `Spec` the network was built from.
    """

    def __init__(self, variant: str = "paper", **arguments: Any):
        spec = Spec(variant, **arguments)
        inputs = keras.Input(spec.input_shape, name="image")
        super().__init__(inputs=inputs, outputs=_network(spec, inputs), name=spec.name)
        self.spec = spec

    def compile(self, optimizer="rmsprop", loss=None, loss_weights=None, metrics=None, weighted_metrics=None, **kwargs):
        """Like `keras.Model.compile`, with this network's defaults.

        Args:
            optimizer: as in Keras.
            loss: one loss for every head, or a dict by head; None for the cross-entropy.
            loss_weights: a dict by head; None for 1.0, 0.3, 0.3.
            metrics: a name for every head, or a dict by head; None for top-1 ("accuracy") and, above five classes,
                top-5 ("top5_accuracy"). `{}` for none.
            weighted_metrics: a dict by head.
            **kwargs: as in Keras.

        Raises:
            ValueError: a list (Keras would assign it to the heads in alphabetical order) or an unknown head.
        """
        if self.spec.include_top:
            loss = self._by_head("loss", loss, default=self._default_loss())
            loss = {head: value for head, value in loss.items() if value is not None}
            weights = {head: LOSS_WEIGHTS[head] for head in loss}
            loss_weights = {**weights, **self._by_head("loss_weights", loss_weights, default=weights)}
            if loss_weights.keys() - loss.keys():
                raise ValueError(
                    f"Expected loss_weights only for heads with a loss {sorted(loss)}; "
                    f"Received: loss_weights={loss_weights}."
                )
            metrics = self._by_head("metrics", metrics, default=self._default_metrics())
            weighted_metrics = self._by_head("weighted_metrics", weighted_metrics, default=None)
        if multiworker.spans_machines(getattr(self, "_distribute_strategy", None)):
            multiworker.mend_keras()
        super().compile(
            optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            **kwargs,
        )

    def classifier(self) -> keras.Model:
        """The main head alone: a plain `keras.Model` from image to one tensor, sharing this model's weights.

        Raises:
            ValueError: the model was built with `include_top=False`.
        """
        if not self.spec.include_top:
            raise ValueError("Expected a model with a main head; Received: one built with include_top=False.")
        return keras.Model(self.input, self.output["main"], name=f"{self.name}_classifier")

    def features(self, names: Sequence[str]) -> keras.Model:
        """A model of named intermediate maps, sharing this model's weights.

        Args:
            names: rows of the body ("pool3", "inception_4d"; see `summary`) or single convolutions ("conv2_3x3",
                "inception_4d_5x5_reduce", "aux1_conv"), as they are after the ReLU. With "_pre_relu" behind the name
                of a convolution or a block: before it, after the normalisation if there is one.

        Returns:
            A `keras.Model` from image to {name: float `(batch, height, width, channels)`}.

        Raises:
            ValueError: no such name; the nearest one is suggested.
        """
        if isinstance(names, str) or not names:
            raise ValueError(f"Expected a list of at least one name; Received: names={names!r}.")
        taps = self._taps()
        for name in names:
            check_choice("feature", name, taps)
        return keras.Model(self.input, {name: taps[name]() for name in names}, name=f"{self.name}_features")

    def _taps(self):
        """How to get at every feature, by name."""
        existing = {layer.name: layer for layer in self.layers}

        def before(step):  # a pooled branch of the naive module has no ReLU
            return existing.get(f"{step.name}_bn", existing[step.name]).output

        taps = {}
        for row in (*self.spec.trunk(), *(Conv(f"{head}_conv", 0, 1) for head in AUX_TAPS if self.spec.has_aux)):
            steps = [step for branch in row.branches for step in branch] if isinstance(row, Inception) else [row]
            for step in steps:
                if isinstance(step, Conv):
                    taps[step.name] = lambda step=step: existing[f"{step.name}_relu"].output
                    taps[f"{step.name}_pre_relu"] = lambda step=step: before(step)
                else:
                    taps[step.name] = lambda step=step: existing[step.name].output
            if isinstance(row, Inception):
                ends = [branch[-1] for branch in row.branches]
                taps[row.name] = lambda row=row: existing[row.name].output
                taps[f"{row.name}_pre_relu"] = lambda ends=ends: ops.concatenate([before(end) for end in ends], axis=-1)
        return taps

    def fit(self, x=None, y=None, *args, **kwargs):
        self._check_labels(y)
        validation = kwargs.get("validation_data")
        if isinstance(validation, tuple | list) and len(validation) > 1:
            self._check_labels(validation[1])
        self._create_training_variables(x, y)
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        self._check_labels(y)
        return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        self._check_labels(y)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        self._check_labels(y)
        return super().test_on_batch(x, y, *args, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        y, sample_weight = self._fan_out(y), self._fan_out(sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, sample_weight = self._fan_out(y), self._fan_out(sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self):
        return self.spec.to_dict()

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)

    def compile_from_config(self, config):
        """Compiles as a `.keras` file says; Keras leaves this to classes with a `compile` of their own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)  # so that its saved state finds its variables

    def _fan_out(self, value):
        """One label (or weight) per image becomes a dict by head; dicts pass through."""
        if value is None or not self.spec.include_top or isinstance(value, Mapping):
            return value
        return {head: value for head in self.spec.heads}

    def _by_head(self, what, value, default):
        heads = self.spec.heads
        if value is None:
            return default
        if isinstance(value, list | tuple):
            raise ValueError(
                f"Expected {what} to be a dict by head {list(heads)}, not a list; Received: {what}={value!r}."
            )
        if isinstance(value, Mapping):
            if unknown := sorted(set(value) - set(heads)):
                raise ValueError(
                    f"Expected the keys of {what} to be among the heads {list(heads)}; Received: {unknown}."
                )
            return dict(value)
        if what == "loss" or isinstance(value, str):
            return {head: value for head in heads}
        raise ValueError(f"Expected {what} to be a dict by head {list(heads)}; Received: {what}={value!r}.")

    def _default_loss(self):
        from_logits = self.spec.classifier_activation is None
        return {head: Crossentropy(from_logits=from_logits) for head in self.spec.heads}

    def _default_metrics(self):
        # Keras puts the head's name before a metric's only where there are several heads.
        prefix = "" if self.spec.aux else "main_"
        ranks = {"accuracy": 1} if self.spec.classes <= 5 else {"accuracy": 1, "top5_accuracy": 5}
        return {head: [TopKAccuracy(k, name=prefix + name) for name, k in ranks.items()] for head in self.spec.heads}

    def _create_training_variables(self, x, y):
        """Makes the optimizer's and the losses' variables now, where `fit` would make them in its first trace.

        TensorFlow traces a function again when its first trace made variables: for this network that is half of
        the time to the first step.
        """
        if not self.spec.include_top or self.optimizer is None:
            return
        if y is None:  # a tf.data.Dataset says what its labels look like; other iterables do not
            spec = getattr(x, "element_spec", None)
            if not isinstance(spec, tuple) or len(spec) < 2:
                return
            y = spec[1]
        example = {head: _one_like(labels) for head, labels in y.items()} if isinstance(y, Mapping) else _one_like(y)
        uniform = ops.full((1, self.spec.classes), 1 / self.spec.classes)
        strategy = getattr(self, "distribute_strategy", None)  # of the TensorFlow backend
        with strategy.scope() if strategy else contextlib.nullcontext():
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
            self.compute_loss(y=example, y_pred={head: uniform for head in self.spec.heads})

    def _check_labels(self, y):
        """Refuses labels of the wrong shape or out of range while they still are arrays."""
        if not self.spec.include_top:
            return
        if isinstance(y, Mapping):
            for labels in y.values():
                self._check_labels(labels)
        elif isinstance(y, np.ndarray | list | tuple) and np.asarray(y).dtype != object:
            labels, classes = np.asarray(y), self.spec.classes
            if labels.ndim == 2 and labels.shape[1] == classes > 1:
                return
            if labels.ndim != 1 and labels.shape[1:] != (1,):
                raise ValueError(
                    f"Expected labels of shape (batch,), (batch, 1) or one-hot (batch, {classes}); "
                    f"Received: shape {labels.shape}."
                )
            if labels.size and not (labels.min() >= 0 and labels.max() < classes):
                raise ValueError(
                    f"Expected labels from 0 to {classes - 1} (classes={classes}); "
                    f"Received: labels from {labels.min()} to {labels.max()}."
                )


def _one_like(labels):
    """One label of zeros, shaped like an array's or a `tf.TensorSpec`'s."""
    shape = labels.shape if hasattr(labels, "shape") else np.shape(labels)
    return np.zeros((1, *shape[1:]))


def _network(spec: Spec, inputs):
    """The output of the body, or the dict of heads."""
    x, taps = inputs, {}
    for row in spec.trunk():
        x = _apply(spec, row, x)
        taps[row.name] = x
    if not spec.include_top:
        pool = {None: None, "avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}[spec.pooling]
        return x if pool is None else pool(data_format="channels_last", name=f"{spec.pooling}_pool")(x)
    outputs = {"main": _main_head(spec, x)}
    if spec.has_aux:
        outputs |= {head: _aux_head(spec, head, taps[f"inception_{block}"]) for head, block in AUX_TAPS.items()}
    return outputs


def _apply(spec: Spec, row: Row, x):
    match row:
        case Conv():
            return _conv(spec, row, x)
        case MaxPool():
            return _max_pool(spec, row, x)
        case ResponseNorm():
            assert isinstance(spec.norm, LRN)
            return LocalResponseNormalization(*spec.norm, name=row.name)(x)
        case Inception():
            ends = []
            for branch in row.branches:
                end = x
                for step in branch:
                    end = _apply(spec, step, end)
                ends.append(end)
            return layers.Concatenate(axis=-1, name=row.name)(ends)


def _conv(spec: Spec, row: Conv, x):
    padding = "same"
    if row.stride > 1 and spec.row.conv1_padding == "explicit":
        x = ZeroPadding2D(row.kernel // 2, data_format="channels_last", name=f"{row.name}_pad")(x)
        padding = "valid"
    norm = spec.norm
    x = Conv2D(
        row.filters,
        row.kernel,
        strides=row.stride,
        padding=padding,
        data_format="channels_last",
        use_bias=spec.row.conv_bias,
        kernel_initializer=_xavier(),
        bias_initializer=_bias(spec),
        name=row.name,
    )(x)
    if isinstance(norm, BatchNorm):
        x = BatchNormalization(momentum=norm.momentum, epsilon=norm.epsilon, scale=norm.scale, name=f"{row.name}_bn")(x)
    return ReLU(name=f"{row.name}_relu")(x)


def _max_pool(spec: Spec, row: MaxPool, x):
    """The family's rounding with the fewest operations: every pooled map is non-negative, so zeros pad it."""
    rounding = spec.row.pool_rounding
    padding = "valid" if rounding == "floor" else "same"
    if row.stride == 1:
        padding = "same"
    elif rounding == "ceil" and row.size > row.stride:
        sizes = x.shape[1:3]
        if all(n is not None and n % 2 == 1 for n in sizes):
            padding = "valid"  # the last window ends at the border
        elif any(n is None or n % 2 == 1 for n in sizes):  # at even sizes "same" is ceil
            pad = ((0, row.stride - 1), (0, row.stride - 1))
            x = ZeroPadding2D(pad, data_format="channels_last", name=f"{row.name}_pad")(x)
            padding = "valid"
    return MaxPooling2D(row.size, row.stride, padding, data_format="channels_last", name=row.name)(x)


def _main_head(spec: Spec, x):
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="main_pool")(x)
    x = layers.Dropout(spec.dropout[0], name="main_dropout")(x)
    return _classify(spec, "main", x)


def _aux_head(spec: Spec, head: str, x):
    if spec.aux_grid(*x.shape[1:3]) is None:
        x = AdaptiveAveragePooling2D(AUX_GRID, name=f"{head}_pool")(x)
    else:
        x = layers.AveragePooling2D(5, 3, "valid", data_format="channels_last", name=f"{head}_pool")(x)
    x = _conv(spec, Conv(f"{head}_conv", spec.scaled(AUX_CONV), 1), x)
    x = layers.Flatten(data_format="channels_last", name=f"{head}_flatten")(x)  # height, width, channel
    x = layers.Dense(
        spec.scaled(AUX_DENSE),
        activation="relu",
        kernel_initializer=_xavier(),
        bias_initializer=_bias(spec),
        name=f"{head}_fc",
    )(x)
    x = layers.Dropout(spec.dropout[1], name=f"{head}_dropout")(x)
    return _classify(spec, head, x)


def _classify(spec: Spec, head: str, x):
    """Logits and probabilities in float32 whatever the precision of the body."""
    x = layers.Dense(spec.classes, dtype="float32", kernel_initializer=_xavier(), name=f"{head}_logits")(x)
    return layers.Activation(spec.classifier_activation or "linear", dtype="float32", name=head)(x)


def _xavier():
    """Caffe's xavier filler: uniform with variance 1 / fan-in."""
    return keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")


def _bias(spec: Spec):
    """0.2 in the families without batch normalisation (Caffe `train_val.prototxt`), so that no ReLU starts dead."""
    return keras.initializers.Constant(0.0 if isinstance(spec.norm, BatchNorm) else 0.2)


@keras.saving.register_keras_serializable(package="inception_v1")
class Crossentropy(keras.losses.Loss):
    """Cross-entropy of integer `(batch,)`, `(batch, 1)` or one-hot (or soft) `(batch, classes)` labels.

    Args:
        from_logits: whether predictions are logits rather than probabilities.
        label_smoothing: share of the label's mass spread over all classes.
    """

    def __init__(self, from_logits=False, label_smoothing=0.0, name="crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def call(self, y_true, y_pred):
        if not _is_one_hot(y_true, y_pred):
            labels = _as_integers(y_true)
            if not self.label_smoothing:
                return keras.losses.sparse_categorical_crossentropy(labels, y_pred, from_logits=self.from_logits)
            y_true = ops.one_hot(labels, y_pred.shape[-1])
        return keras.losses.categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing)

    def get_config(self):
        config = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="inception_v1")
class TopKAccuracy(keras.metrics.MeanMetricWrapper):
    """Share of images whose label is among the `k` best scores; takes the labels that `Crossentropy` takes.

    A label that ties for the last place does not count, and neither do NaN scores, so that a network with
    constant or broken output does not look perfect.
    """

    def __init__(self, k=1, name="accuracy", dtype=None):
        super().__init__(in_top_k, name=name, dtype=dtype, k=k)
        self.k = k

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype, "k": self.k}


def in_top_k(y_true, y_pred, k):
    """1.0 for each image whose label (as `Crossentropy` takes it) is among the `k` best scores, else 0.0."""
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    one_hot = _is_one_hot(y_true, y_pred)
    labels = ops.argmax(y_true, axis=-1) if one_hot else _as_integers(y_true)
    score = ops.take_along_axis(y_pred, ops.expand_dims(ops.cast(labels, "int32"), -1), axis=-1)  # (batch, 1)
    not_below = ops.logical_not(y_pred < score)  # (batch, classes), the label's own score included
    return ops.cast(ops.sum(ops.cast(not_below, "int32"), axis=-1) <= k, "float32")


def _is_one_hot(y_true, y_pred):
    shape, classes = tuple(y_true.shape), y_pred.shape[-1]
    if len(shape) == 1 or shape[1:] == (1,):
        return False
    if len(shape) == 2 and shape[1] == classes:
        return True
    raise ValueError(
        f"Expected labels of shape (batch,), (batch, 1) or one-hot (batch, {classes}); Received: shape {shape}."
    )


def _as_integers(y_true):
    return ops.cast(ops.reshape(y_true, (-1,)), "int32")

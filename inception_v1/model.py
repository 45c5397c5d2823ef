"""The `GoogLeNet` model class: the layers of a `Spec` as a functional model that trains on one label per image."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Unpack

import keras
import numpy as np
from keras import layers, ops

from inception_v1.errors import UserError
from inception_v1.keras_patches import is_multi_worker, patch_multi_worker_fit, refuse_default_clone
from inception_v1.layers import AdaptiveAveragePooling2D, LocalResponseNormalization
from inception_v1.losses import Crossentropy, TopKAccuracy
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
    LayerSpec,
    MaxPool,
    ResponseNorm,
    Spec,
    SpecArguments,
    check_choice,
    signature,
)
from inception_v1.tensorflow_layers import BatchNormalization, Conv2D, MaxPooling2D, ReLU, ZeroPadding2D

Default = TypeVar("Default")


@refuse_default_clone
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

    def __init__(self, variant: str = "paper", **arguments: Unpack[SpecArguments]) -> None:
        spec = Spec(variant, **arguments)
        inputs = keras.Input(spec.input_shape, name="image")
        super().__init__(inputs=inputs, outputs=_network(spec, inputs), name=spec.name)
        self.spec = spec

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Mapping[str, Any] | None = None,
        metrics: Any = None,
        weighted_metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
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
            UserError: a list (Keras would assign it to the heads in alphabetical order) or an unknown head.
        """
        if self.spec.include_top:
            loss = self._by_head("loss", loss, default=self._default_loss())
            loss = {head: value for head, value in loss.items() if value is not None}
            weights = {head: LOSS_WEIGHTS[head] for head in loss}
            loss_weights = {**weights, **self._by_head("loss_weights", loss_weights, default=weights)}
            if loss_weights.keys() - loss.keys():
                raise UserError(
                    f"Expected loss_weights only for heads with a loss {sorted(loss)}; "
                    f"Received: loss_weights={loss_weights}."
                )
            metrics = self._by_head("metrics", metrics, default=self._default_metrics())
            weighted_metrics = self._by_head("weighted_metrics", weighted_metrics, default=None)
        if is_multi_worker(getattr(self, "distribute_strategy", None)):
            patch_multi_worker_fit()
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
            UserError: the model was built with `include_top=False`.
        """
        if not self.spec.include_top:
            raise UserError("Expected a model with a main head; Received: one built with include_top=False.")
        return keras.Model(self.input, self.output["main"], name=f"{self.name}_classifier")

    def features(self, names: Sequence[str]) -> keras.Model:
        """A model of named intermediate feature maps, sharing this model's weights.

        Args:
            names: layers of the body ("pool3", "inception_4d"; see `summary`) or single convolutions ("conv2_3x3",
                "inception_4d_5x5_reduce", "aux1_conv"), as they are after the ReLU. With "_pre_relu" behind the name
                of a convolution or a block: before it, after the normalization if there is one. Of the heads
                "aux1_fc", "main_logits" and "main" (and those of "aux2").

        Returns:
            A `keras.Model` from image to {name: float `(batch, height, width, channels)`, of dense layers
            `(batch, units)`}.

        Raises:
            UserError: no such name; the nearest one is suggested.
        """
        if isinstance(names, str) or not names:
            raise UserError(f"Expected a list of at least one name; Received: names={names!r}.")
        taps = self._taps()
        for name in names:
            check_choice("feature", name, taps)
        return keras.Model(self.input, {name: taps[name]() for name in names}, name=f"{self.name}_features")

    def feature_names(self) -> list[str]:
        """The names that `features` takes, from the image on, the heads' last."""
        return list(self._taps())

    def _taps(self) -> dict[str, Callable[[], Any]]:
        """Function that returns a feature's tensor, by name."""
        built = {layer.name: layer for layer in self.layers}

        def output(name: str) -> Any:
            return built[name].output

        def before_relu(layer: Conv | MaxPool) -> Any:  # a pooled branch of the naive module has no ReLU
            return built.get(f"{layer.name}_bn", built[layer.name]).output

        def joined_before_relu(ends: Sequence[Conv | MaxPool]) -> Any:
            return ops.concatenate([before_relu(end) for end in ends], axis=-1)

        taps: dict[str, Callable[[], Any]] = {}
        aux = [Conv(f"{head}_conv", 0, 1) for head in AUX_TAPS if self.spec.has_aux]
        for layer in (*self.spec.trunk(), *aux):
            for inner in (
                [one for branch in layer.branches for one in branch] if isinstance(layer, Inception) else [layer]
            ):
                if isinstance(inner, Conv):
                    taps[inner.name] = functools.partial(output, f"{inner.name}_relu")
                    taps[f"{inner.name}_pre_relu"] = functools.partial(before_relu, inner)
                else:
                    taps[inner.name] = functools.partial(output, inner.name)
            if isinstance(layer, Inception):
                ends = [branch[-1] for branch in layer.branches]
                taps[layer.name] = functools.partial(output, layer.name)
                taps[f"{layer.name}_pre_relu"] = functools.partial(joined_before_relu, ends)
        for head in self.spec.heads:
            own = (head, f"{head}_logits") if head == "main" else (head, f"{head}_logits", f"{head}_fc")
            taps |= {name: functools.partial(output, name) for name in own}
        return taps

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        self._check_labels(y)
        validation = kwargs.get("validation_data")
        if isinstance(validation, tuple | list) and len(validation) > 1:
            self._check_labels(validation[1])
        self.create_training_variables(x, y)
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._check_labels(y)
        return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._check_labels(y)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._check_labels(y)
        return super().test_on_batch(x, y, *args, **kwargs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        if y is None and self.spec.include_top:
            raise UserError(
                f"Expected labels with the images: one an image for all heads, or a dict by head "
                f"{list(self.spec.heads)}; Received: images alone."
            )
        y, sample_weight = self._fan_out(y), self._fan_out(sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        y, sample_weight = self._fan_out(y), self._fan_out(sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def export(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Like `keras.Model.export`, for a model that has not been called too; with its weights alone.

        `training.export` (`googlenet export`) writes what also decodes images and names classes, and checks it.

        Args:
            filepath, format, **kwargs: as in Keras.
        """
        if kwargs.get("input_signature") is None:
            image = self.inputs[0]
            kwargs["input_signature"] = [keras.InputSpec(dtype=image.dtype, shape=image.shape, name=image.name)]
        super().export(filepath, format, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return self.spec.to_dict()

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> "GoogLeNet":
        return cls(**config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as a `.keras` file specifies; Keras leaves this to classes with a `compile` of their own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)  # so that its saved state finds its variables

    def _fan_out(self, value: Any) -> Any:
        """One label (or weight) per image becomes a dict by head; dicts pass through."""
        if value is None or not self.spec.include_top or isinstance(value, Mapping):
            return value
        return {head: value for head in self.spec.heads}

    def _by_head(self, what: str, value: Any, default: Default) -> dict[str, Any] | Default:
        heads = self.spec.heads
        if value is None:
            return default
        if isinstance(value, list | tuple):
            raise UserError(
                f"Expected {what} to be a dict by head {list(heads)}, not a list; Received: {what}={value!r}."
            )
        if isinstance(value, Mapping):
            if unknown := sorted(set(value) - set(heads)):
                raise UserError(
                    f"Expected the keys of {what} to be among the heads {list(heads)}; Received: {unknown}."
                )
            return dict(value)
        if what == "loss" or isinstance(value, str):
            return {head: value for head in heads}
        raise UserError(f"Expected {what} to be a dict by head {list(heads)}; Received: {what}={value!r}.")

    def _default_loss(self) -> dict[str, Any]:
        from_logits = self.spec.classifier_activation is None
        return {head: Crossentropy(from_logits=from_logits) for head in self.spec.heads}

    def _default_metrics(self) -> dict[str, Any]:
        # Keras puts the head's name before a metric's only where there are several heads.
        prefix = "" if self.spec.aux else "main_"
        ranks = {"accuracy": 1} if self.spec.classes <= 5 else {"accuracy": 1, "top5_accuracy": 5}
        return {head: [TopKAccuracy(k, name=prefix + name) for name, k in ranks.items()] for head in self.spec.heads}

    def create_training_variables(self, x: Any, y: Any) -> None:
        """Makes the optimizer's and the losses' variables now, where `fit` would make them in its first trace.

        TensorFlow traces a function again when its first trace made variables: for this network that is half of
        the time to the first step.

        Args:
            x, y: as `fit` takes them.
        """
        if not self.spec.include_top or self.optimizer is None:
            return
        if y is None:  # a tf.data.Dataset knows the shape of its labels; other iterables do not
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

    def _check_labels(self, y: Any) -> None:
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
                raise UserError(
                    f"Expected labels of shape (batch,), (batch, 1) or one-hot (batch, {classes}); "
                    f"Received: shape {labels.shape}."
                )
            if labels.size and not (labels.min() >= 0 and labels.max() < classes):
                raise UserError(
                    f"Expected labels from 0 to {classes - 1} (classes={classes}); "
                    f"Received: labels from {labels.min()} to {labels.max()}."
                )


_SELF, _VARIANT, _ = inspect.signature(GoogLeNet.__init__).parameters.values()
_SIGNATURE = signature(_VARIANT)
# The constructor has it, not the class: its instances would inherit it, and `tf.function` reads how to call them there.
GoogLeNet.__init__.__signature__ = _SIGNATURE.replace(  # type: ignore[attr-defined]  # typeshed's functions have none
    parameters=[_SELF, *_SIGNATURE.parameters.values()]
)


def _one_like(labels: Any) -> np.ndarray:
    """One label of zeros, shaped like an array's or a `tf.TensorSpec`'s."""
    shape = labels.shape if hasattr(labels, "shape") else np.shape(labels)
    return np.zeros((1, *shape[1:]))


def _network(spec: Spec, inputs: Any) -> Any:
    """The output of the body, or the dict of heads."""
    x, taps = inputs, {}
    for number, layer in enumerate(spec.trunk()):
        x = _apply(spec, layer, x, reads_images=number == 0)
        taps[layer.name] = x
    if not spec.include_top:
        pool = {None: None, "avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}[spec.pooling]
        return x if pool is None else pool(data_format="channels_last", name=f"{spec.pooling}_pool")(x)
    outputs = {"main": _main_head(spec, x)}
    if spec.has_aux:
        outputs |= {head: _aux_head(spec, head, taps[f"inception_{block}"]) for head, block in AUX_TAPS.items()}
    return outputs


def _apply(spec: Spec, layer: LayerSpec, x: Any, reads_images: bool = False) -> Any:
    match layer:
        case Conv():
            return _conv(spec, layer, x, reads_images)
        case MaxPool():
            return _max_pool(spec, layer, x)
        case ResponseNorm():
            assert isinstance(spec.norm, LRN)
            return LocalResponseNormalization(*spec.norm, name=layer.name)(x)
        case Inception():
            ends = []
            for branch in layer.branches:
                end = x
                for inner in branch:
                    end = _apply(spec, inner, end)
                ends.append(end)
            return layers.Concatenate(axis=-1, name=layer.name)(ends)


def _conv(spec: Spec, layer: Conv, x: Any, reads_images: bool = False) -> Any:
    padding, norm = "same", spec.norm
    if layer.stride > 1 and spec.family.conv1_padding == "explicit":
        x = ZeroPadding2D(layer.kernel // 2, data_format="channels_last", name=f"{layer.name}_pad")(x)
        padding = "valid"
    x = Conv2D(
        layer.filters,
        layer.kernel,
        strides=layer.stride,
        padding=padding,
        data_format="channels_last",
        use_bias=spec.family.conv_bias,
        kernel_initializer=_xavier(),
        bias_initializer=_bias(spec),
        input_gradient=not reads_images,
        name=layer.name,
    )(x)
    if isinstance(norm, BatchNorm):
        x = BatchNormalization(momentum=norm.momentum, epsilon=norm.epsilon, scale=norm.scale, name=f"{layer.name}_bn")(
            x
        )
    return ReLU(name=f"{layer.name}_relu")(x)


def _max_pool(spec: Spec, layer: MaxPool, x: Any) -> Any:
    """The family's rounding with the fewest operations: all pooled values are non-negative, so zeros can pad them."""
    rounding = spec.family.pool_rounding
    padding = "valid" if rounding == "floor" else "same"
    if layer.stride == 1:
        padding = "same"
    elif rounding == "centered":
        x = ZeroPadding2D(layer.size // 2, data_format="channels_last", name=f"{layer.name}_pad")(x)
        padding = "valid"
    elif rounding == "ceil" and layer.size > layer.stride:
        sizes = x.shape[1:3]
        if all(n is not None and n % 2 == 1 for n in sizes):
            padding = "valid"  # the last window ends at the border
        elif any(n is None or n % 2 == 1 for n in sizes):  # at even sizes "same" is ceil
            pad = ((0, layer.stride - 1), (0, layer.stride - 1))
            x = ZeroPadding2D(pad, data_format="channels_last", name=f"{layer.name}_pad")(x)
            padding = "valid"
    return MaxPooling2D(layer.size, layer.stride, padding, data_format="channels_last", name=layer.name)(x)


def _main_head(spec: Spec, x: Any) -> Any:
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="main_pool")(x)
    x = layers.Dropout(spec.dropout[0], name="main_dropout")(x)
    return _classify(spec, "main", x)


def _aux_head(spec: Spec, head: str, x: Any) -> Any:
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


def _classify(spec: Spec, head: str, x: Any) -> Any:
    """Logits and probabilities in float32 whatever the precision of the body."""
    x = layers.Dense(spec.classes, dtype="float32", kernel_initializer=_xavier(), name=f"{head}_logits")(x)
    return layers.Activation(spec.classifier_activation or "linear", dtype="float32", name=head)(x)


def _xavier() -> keras.initializers.Initializer:
    """Caffe's xavier filler: uniform with variance 1 / fan-in."""
    return keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")


def _bias(spec: Spec) -> keras.initializers.Initializer:
    """0.2 in the families without batch normalization (Caffe `train_val.prototxt`), so that no ReLU starts dead."""
    return keras.initializers.Constant(0.0 if isinstance(spec.norm, BatchNorm) else 0.2)

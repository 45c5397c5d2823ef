"""Transfer learning: a trained network under new heads, with its first stages frozen or slower than the rest."""

import os
from collections.abc import Iterable
from typing import Any

import keras

from inception_v1 import GoogLeNet, Spec
from inception_v1.errors import UserError
from inception_v1.spec import AUX_TAPS, check_choice

# Stages of the body from the image on: how their variables' paths begin, and the last layer with weights.
STAGES = {
    "conv": "conv2_3x3",
    "inception_3": "inception_3b",
    "inception_4": "inception_4e",
    "inception_5": "inception_5b",
}


def fine_tune(
    model: GoogLeNet,
    classes: int,
    freeze_until: str | None = None,
    freeze_batch_norm: bool = True,
    images: Any = None,
    **changes: Any,
) -> GoogLeNet:
    """A network for other classes with the body of `model`, ready to `compile` and `fit`.

    Everything but the classifiers is copied, the auxiliary heads' inner layers too where they fit; `model` stays as it
    is. The classifiers are new also where the number of classes is the same.

    Args:
        model: a trained network with a top.
        classes: of the new task.
        freeze_until: last block ("3a" ... "5b") or other layer of the body ("conv2_3x3") that does not train; None
            trains all. A frozen batch normalization also keeps its running statistics.
        freeze_batch_norm: whether the body's batch normalization keeps its running statistics, scales and offsets. The
            statistics of a few small batches would be noise, and a momentum of 0.9997 would hardly let them in.
        images: float `(count, height, width, channels)` of the new task, normalized as the network takes them. The
            running statistics become theirs, but those up to `freeze_until`; None keeps all of `model`'s.
        **changes: other arguments of `build_googlenet`, for instance `input_shape`, `aux` or `dropout`.

    Returns:
        A new `GoogLeNet`.

    Raises:
        UserError: no such layer, or a body that the weights do not fit (every layer is named).
    """
    if not model.spec.include_top:
        raise UserError("Expected a model with heads; Received: one built with include_top=False.")
    spec = with_arguments(model.spec, classes=classes, class_names=changes.pop("class_names", None), **changes)
    tuned = GoogLeNet(**spec.to_dict())
    freeze(tuned, freeze_until)
    copy_body(model, tuned)
    if images is not None:
        estimate_statistics(tuned, [images])
    freeze(tuned, freeze_until, freeze_batch_norm)
    return tuned


def with_arguments(spec: Spec, **arguments: Any) -> Spec:
    """`spec` with other arguments. Raises UserError as `Spec` does."""
    return Spec(**{**spec.to_dict(), **arguments})


def read_network(path: str | os.PathLike[str]) -> GoogLeNet:
    """The network in a `.keras` file. Raises UserError where there is none."""
    expected = f"Expected a GoogLeNet in a .keras file; Received: {str(path)!r}"
    if not os.path.isfile(path) or not str(path).endswith(".keras"):
        raise UserError(f"{expected}, which is no such file.")
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise UserError(f"{expected}: {error}") from error
    if not isinstance(model, GoogLeNet):
        raise UserError(f"{expected}, which holds a {type(model).__name__}.")
    return model


def check_fits(pretrained: Spec, spec: Spec, freeze_until: str | None) -> None:
    """Raises UserError unless `spec` takes images of as many channels as the pretrained network and has the layer."""
    if pretrained.input_shape[-1] != spec.input_shape[-1]:
        raise UserError(
            f"Expected images of {pretrained.input_shape[-1]} channels, as the weights were trained on; "
            f"Received: a source of {spec.input_shape[-1]}."
        )
    _layers_until(spec, freeze_until)


def copy_body(source: GoogLeNet, target: GoogLeNet, classifiers: bool = False) -> None:
    """Copies every layer's weights but the classifiers', and those of auxiliary layers where they fit.

    Args:
        source: the network to copy from.
        target: the network to copy to.
        classifiers: whether to copy the classifiers too.

    Raises:
        UserError: another layer does not fit; nothing is copied then.
    """
    own = {layer.name: layer.get_weights() for layer in source.layers}
    fitting, wrong = {}, []
    for layer in target.layers:
        if not layer.weights or (layer.name.endswith("_logits") and not classifiers):
            continue
        wanted, found = [tuple(w.shape) for w in layer.weights], [w.shape for w in own.get(layer.name, [])]
        if wanted == found:
            fitting[layer.name] = own[layer.name]
        elif not layer.name.startswith(tuple(AUX_TAPS)):
            wrong.append(f"{layer.name} {found or 'absent'}, not {wanted}")
    if wrong:
        raise UserError(f"Expected weights for the same body; Received: {'; '.join(wrong)}.")
    for name, weights in fitting.items():
        target.get_layer(name).set_weights(weights)


def freeze(model: GoogLeNet, until: str | None, batch_norm: bool = False) -> None:
    """Freezes the body up to and including a block or another layer, and nothing else; None freezes nothing.

    Takes effect when the model is compiled, or when `fit` makes its training function anew.

    Args:
        model: whose layers to freeze or unfreeze.
        until: name of the block or other layer.
        batch_norm: whether to freeze all batch normalization of the body too.

    Raises:
        UserError: no such layer (every one is listed).
    """
    frozen = _layers_until(model.spec, until)
    for layer in model.layers:
        if layer.weights:
            norm = batch_norm and _is_batch_norm(layer) and not layer.name.startswith(tuple(AUX_TAPS))
            layer.trainable = not norm and not any(
                layer.name == name or layer.name.startswith(f"{name}_") for name in frozen
            )


def _is_batch_norm(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def estimate_statistics(model: GoogLeNet, batches: Iterable[Any]) -> None:
    """Sets the running statistics of batch normalization that is not frozen to the averages over batches of images.

    Source: adaptive batch normalization, Li et al., arXiv 1603.04779.

    Args:
        model: of this process alone.
        batches: float `(batch, height, width, channels)`, normalized as the network takes them.
    """
    momenta = {layer: layer.momentum for layer in model.layers if _is_batch_norm(layer) and layer.trainable}
    if not momenta:
        return
    for number, images in enumerate(batches):
        for layer in momenta:
            layer.momentum = number / (number + 1)
        model(images, training=True)
    for layer, momentum in momenta.items():
        layer.momentum = momentum


def with_statistics(
    pretrained: GoogLeNet, spec: Spec, freeze_until: str | None, batches: Iterable[Any], classifiers: bool = False
) -> GoogLeNet:
    """The body of a pretrained network under the heads of `spec`, with the running statistics of batches of images.

    Args:
        pretrained, spec, batches: those.
        freeze_until: last layer of the body that keeps its statistics, or None.
        classifiers: whether to copy the classifiers too.
    """
    model = GoogLeNet(**spec.to_dict())
    copy_body(pretrained, model, classifiers)
    freeze(model, freeze_until)
    estimate_statistics(model, batches)
    return model


def _layers_until(spec: Spec, until: str | None) -> list[str]:
    if until is None:
        return []
    names = [layer.name for layer in spec.trunk()]
    short = [name.removeprefix("inception_") for name in names]
    check_choice("freeze_until", until.removeprefix("inception_"), short)
    return names[: short.index(until.removeprefix("inception_")) + 1]


def stage_factors(factor: float) -> dict[str, float]:
    """Factors of the learning rate by the beginning of a variable's path: `factor` for blocks 5a and 5b, its square for
    4a to 4e, and so on down to the stem. The heads keep the learning rate itself."""
    return {stage: factor ** (len(STAGES) - depth) for depth, stage in enumerate(STAGES)}


class Unfreeze(keras.callbacks.Callback):
    """Lets frozen stages train one after the other, those next to the heads first.

    Args:
        until: the last layer that is frozen at the start.
        epochs: after how many epochs everything trains; the stages divide the time before equally.
        batch_norm: whether all batch normalization of the body stays frozen.
    """

    def __init__(self, until: str, epochs: int, batch_norm: bool = False) -> None:
        super().__init__()
        self._until, self._epochs, self._batch_norm = until, epochs, batch_norm
        self._border: str | None = until

    def border(self, epoch: int) -> str | None:
        """The last frozen layer in an epoch, from 0."""
        names = _layers_until(self.model.spec, self._until)
        borders = [self._until, *reversed([end for end in STAGES.values() if end in names[:-1]]), None]
        return borders[min(epoch * (len(borders) - 1) // self._epochs, len(borders) - 1)]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (border := self.border(epoch)) != self._border:
            freeze(self.model, border, self._batch_norm)
            self.model.make_train_function(force=True)
            self._border = border

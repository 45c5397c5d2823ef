"""A network as its activations are looked at: by layer, for images 0-1 of any size, with the gradient of its ReLUs as
rendering needs it."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from inception_v1.fold_batchnorm import call_layer, inference_copy
from inception_v1.preprocessing import constants, normalize
from inception_v1.spec import AUX_TAPS, Spec, smallest_input
from interpretability.layer_names import lucid_names, own_name
from interpretability.objectives import INPUT, Need
from interpretability.relu_gradient import RedirectedReLU
from training.precision import precision
from training.transfer import with_arguments


class FeatureNetwork:
    """Layers of a trained network for inference.

    Args:
        model: the network; it stays as it is.
        layers: names, ours or Lucid's.

    Attributes:
        model: a `keras.Model` from [normalized images, float scalar `redirect` (see `redirected_relu`)] to {our name:
            activations}.
        names: {name as given: our name}.
        channels: of an image.
        fixed_size: height and width, where the layers take one size alone; else None.
        smallest: height and width that the network takes at least.
        labels: names of the classes; empty where the network has none.

    Raises:
        UserError: a layer that is not there; the nearest one is named.
    """

    def __init__(self, model: GoogLeNet, layers: Iterable[str]) -> None:
        if not isinstance(model, GoogLeNet):
            raise UserError(f"Expected a GoogLeNet; Received: a {type(model).__name__}.")
        self.names = {name: own_name(name) for name in layers if name != INPUT}
        wanted = list(dict.fromkeys(self.names.values()))
        check_layers(model, self.names)
        self.channels = model.spec.input_shape[2]
        self.fixed_size = fixed_size(model, wanted)
        self.smallest = smallest_input(model.spec)
        self.labels: Sequence[str] = model.spec.class_names or ()
        self._constants = constants(model.spec.pixels, self.channels)
        self.model = _with_redirection(any_size(model, wanted).features(wanted)) if wanted else _identity()

    def check(self, needs: Iterable[Need]) -> None:
        """Raises UserError where the network lacks a channel or class."""
        for layer, numbers, width, label in needs:
            if layer == INPUT:
                continue
            count = self.width(layer)
            for number in (*numbers, *([label] if isinstance(label, int) else [])):
                if not 0 <= number < count:
                    nearest = min(max(number, 0), count - 1)
                    raise UserError(
                        f"Expected a channel from 0 to {count - 1} of {layer!r}; Received: {number}. Did you mean "
                        f"{nearest}?"
                    )
            if width is not None and width != count:
                raise UserError(f"Expected a vector of {count} channels for {layer!r}; Received: {width}.")
            if isinstance(label, str) and label not in self.labels:
                raise UserError(f"Expected the name of a class; Received: {label!r}, not among {self.labels}.")

    def width(self, layer: str) -> int:
        """Channels or units of a layer."""
        return self.model.output[self.names[layer]].shape[-1]

    def activations(
        self, network: Callable[[Any], Any], images: Any, transformed: Any, redirect: Any
    ) -> "FeatureActivations":
        """What objectives are functions of.

        Args:
            network: calls `model`.
            images: before the transforms, `(batch, height, width, channels)` 0-1: the activations of "input".
            transformed: after them.
            redirect: see `redirected_relu`.
        """
        mean, std = self._constants
        found = network([(transformed * 255 - mean) / std, redirect]) if self.names else {}
        return FeatureActivations({name: found[own] for name, own in self.names.items()} | {INPUT: images}, self.labels)


class FeatureActivations:
    """`objectives.Activations` in a dict.

    Args:
        found: name to tensor.
        labels: names of the classes.
    """

    def __init__(self, found: Mapping[str, Any], labels: Sequence[str] = ()) -> None:
        self._found, self.labels = found, labels

    def __call__(self, layer: str) -> Any:
        return self._found[layer]


def check_layers(model: GoogLeNet, layers: Iterable[str]) -> None:
    """Raises UserError unless a network has these layers, by our names or Lucid's; the nearest one is named."""
    known = model.feature_names()
    for name in layers:
        if own_name(name) not in known:
            near = difflib.get_close_matches(name, [*known, *lucid_names()], n=1, cutoff=0)
            raise UserError(
                f"Expected a layer of {model.name}, such as 'inception_4d', 'conv2_3x3_pre_relu' or 'main_logits'; "
                f"Received: {name!r}. Did you mean {near[0]!r}?"
            )


def check_image(model: GoogLeNet, image: np.ndarray) -> None:
    """Raises UserError unless an array is an image of a network's channels."""
    channels = model.spec.input_shape[2]
    if np.ndim(image) != 3 or np.shape(image)[2] != channels:
        raise UserError(f"Expected an image (height, width, {channels}); Received: shape {np.shape(image)}.")


def width_of(model: GoogLeNet, layer: str) -> int:
    """Channels or units of a layer, by our name or Lucid's. Raises UserError as `check_layers`."""
    check_layers(model, [layer])
    return model.features([own_name(layer)]).output[own_name(layer)].shape[-1]


def check_head(model: GoogLeNet, head: str) -> None:
    """Raises UserError unless a network has this head."""
    if head not in model.spec.heads:
        raise UserError(f"Expected one of the network's heads {list(model.spec.heads)}; Received: {head!r}.")


def network_inputs(spec: Spec, images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Images normalized for a network, float32 `(images, height, width, channels)`.

    Args:
        spec: of the network.
        images: of that shape, on the 0-255 scale.
        size: height and width, where only one size is taken.

    Raises:
        UserError: no image, or images of another shape.
    """
    images = np.asarray(images)
    expected = (*(size or images.shape[1:3]), spec.input_shape[2])
    if images.ndim != 4 or images.shape[1:] != expected or not len(images):
        raise UserError(f"Expected images of shape {('images', *expected)}, at least one; Received: {images.shape}.")
    return np.asarray(normalize(images, spec.pixels), "float32")


def checked_classes(
    spec: Spec, images: int, classes: Sequence[int] | None, logits: np.ndarray | None = None
) -> np.ndarray:
    """Classes to explain, int64 `(images,)`: those given, else the best of `logits`, float `(images, classes)`.

    Raises:
        UserError: another number of classes than of images, or a class that is not there.
    """
    if classes is None:
        assert logits is not None
        return logits.argmax(axis=1).astype("int64")
    chosen = np.asarray(classes)
    if chosen.shape != (images,) or not ((chosen >= 0) & (chosen < spec.classes)).all():
        raise UserError(f"Expected a class from 0 to {spec.classes - 1} for each image; Received: {classes}.")
    return chosen.astype("int64")


def _identity() -> keras.Model:
    """A model of no layer, for objectives of the image alone."""
    inputs = keras.Input((1,))
    return keras.Model(inputs, inputs)


def fixed_size(model: GoogLeNet, layers: Sequence[str]) -> tuple[int, int] | None:
    """Height and width of the images, where one of these layers takes one size alone: an auxiliary head's."""
    height, width, _ = model.spec.input_shape
    return (height, width) if _of_auxiliary_heads(layers) and height and width else None


def inference_features(model: GoogLeNet, layers: Sequence[str]) -> keras.Model:
    """A model for inference from normalized images, of any size unless that is fixed, to {our name: activations}."""
    return inference_copy(any_size(model, layers).features(layers))


def _of_auxiliary_heads(layers: Sequence[str]) -> bool:
    return any(name.startswith(tuple(AUX_TAPS)) for name in layers)


def any_size(model: GoogLeNet, layers: Sequence[str]) -> GoogLeNet:
    """The network in float32 for images of any size; itself where one size is fixed."""
    if fixed_size(model, layers):
        return model
    aux = _of_auxiliary_heads(layers)
    spec = with_arguments(model.spec, input_shape=(None, None, model.spec.input_shape[2]), aux=aux)
    with precision("float32"):
        copy = GoogLeNet(**spec.to_dict())
    for layer in copy.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy


def _with_redirection(features: keras.Model) -> keras.Model:
    """The network for inference, with a second input that every ReLU reads."""
    redirect = keras.Input(batch_shape=(), dtype="float32", name="redirect")
    image = keras.Input(features.input.shape[1:], name="image", dtype="float32")
    relu = keras.activations.relu

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.layers.ReLU):
            return RedirectedReLU(name=layer.name)([args[0], redirect])
        if isinstance(layer, keras.layers.Dense) and layer.activation is relu:
            layer.activation = keras.activations.linear
            return RedirectedReLU(name=f"{layer.name}_relu")([layer(*args), redirect])
        return call_layer(layer, *args, **kwargs)

    both = keras.Model([features.input, redirect], features.output)
    return inference_copy(both, call, [image, redirect])

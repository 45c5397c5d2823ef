"""Which pixels a prediction comes from: PAIR's `saliency` for any head, and the exact class activation map.

Sources: Sundararajan et al. 2017 (integrated gradients), Kapishnikov et al. 2019 (XRAI) and 2021 (guided integrated
gradients), Smilkov et al. 2017 (SmoothGrad), Selvaraju et al. 2017 (Grad-CAM), Zeiler and Fergus 2014 (occlusion), Zhou
et al. 2016 (class activation maps, on GoogLeNet).
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from inception_v1.spec import AUX_TAPS, check_choice
from interpretability import gradients
from interpretability.network import check_head, checked_classes, fixed_size, inference_features, network_inputs

log = logging.getLogger(__name__)

METHODS = ("cam", "gradcam", "integrated_gradients", "guided_ig", "smoothgrad", "xrai", "occlusion")
LAST = {"main": "inception_5b"} | {head: f"inception_{block}" for head, block in AUX_TAPS.items()}
STEPS, MOST_STEPS = 200, 3200  # between the baseline and the image
COMPLETE = 0.01  # of the logit's gain that integrated gradients may miss
OCCLUSION_BATCH = 64


class Attribution(NamedTuple):
    """What `attribute` returns.

    Attributes:
        maps: float32 `(images, height, width)`: how much each pixel speaks for the class, against it where negative.
            Of "cam" and "gradcam" as large as the feature maps.
        classes: int64 `(images,)`, the classes explained.
        logits: float32 `(images,)`, theirs.
    """

    maps: np.ndarray
    classes: np.ndarray
    logits: np.ndarray


def attribute(
    model: GoogLeNet,
    images: np.ndarray,
    method: str = "integrated_gradients",
    classes: Sequence[int] | None = None,
    head: str = "main",
    seed: int = 0,
) -> Attribution:
    """Explains the logit of a class in each image.

    Args:
        model: the network.
        images: `(images, height, width, channels)` on the 0-255 scale, as `preprocessing.normalize` takes them.
        method: one of `METHODS`. "cam" needs no gradient: the last feature maps times the classifier's column, whose
            mean and the bias are the logit; it is defined for the main head. Integrated gradients begin at black.
        classes: one for each image; None for the head's best.
        head: "main", "aux1" or "aux2".
        seed: of the noise of "smoothgrad".

    Raises:
        UserError: an unknown method, a head that is not there, images or classes that do not fit the network, or Keras
            on another backend than TensorFlow and JAX.
    """
    return Explainer(model, head).attribute(images, method, classes, seed)


class Explainer:
    """`attribute` for several methods and images, compiled once.

    Args:
        model: the network.
        head: its name.

    Raises:
        UserError: a head that is not there, or Keras on another backend than TensorFlow and JAX.
    """

    def __init__(self, model: GoogLeNet, head: str = "main") -> None:
        gradients.check_backend()
        check_head(model, head)
        self._logits, self._layer, self._head, self._spec = f"{head}_logits", LAST[head], head, model.spec
        self._size = fixed_size(model, [self._logits])
        whole = inference_features(model, [self._layer, self._logits])
        to_logits = keras.Model(whole.input, whole.output[self._logits])
        from_maps = keras.Model(whole.output[self._layer], whole.output[self._logits])
        self._columns = np.asarray(model.get_layer(self._logits).kernel)
        self._of_layers, self._of_logits = gradients.inference(whole), gradients.inference(to_logits)
        self._gradient = gradients.value_and_gradient(_sum_of_logit, to_logits, any_shape=True)
        self._gradient_of_maps = gradients.value_and_gradient(_sum_of_logit, from_maps, any_shape=True)

    def attribute(
        self,
        images: np.ndarray,
        method: str = "integrated_gradients",
        classes: Sequence[int] | None = None,
        seed: int = 0,
    ) -> Attribution:
        """As the function `attribute`."""
        check_choice("method", method, METHODS)
        if method == "cam" and self._head != "main":
            raise UserError(
                f"Expected the main head for class activation maps, or method 'gradcam'; Received: {self._head!r}."
            )
        inputs = network_inputs(self._spec, images, self._size)
        logits = self.logits(inputs)
        chosen = checked_classes(self._spec, len(images), classes, logits)
        if method == "cam":
            maps = self.class_activation_maps(inputs, chosen)
        else:
            baseline = np.asarray(normalize(np.zeros_like(images[0]), self._spec.pixels), "float32")
            with _seeded(seed):
                pairs = zip(inputs, chosen.tolist(), strict=True)
                maps = np.stack([_explain(method, self, x, number, baseline) for x, number in pairs])
        return Attribution(maps.astype("float32"), chosen, logits[np.arange(len(images)), chosen])

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 `(images, classes)` of normalized images."""
        return self._of_logits(inputs)

    def maps(self, inputs: np.ndarray) -> np.ndarray:
        """The last feature maps."""
        return self._of_layers(inputs)[self._layer]

    def class_activation_maps(self, inputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """`(images, rows, columns)`, whose mean and the bias are the logit of the main head."""
        return np.einsum("bhwc,cb->bhw", self.maps(inputs), self._columns[:, classes])

    def __call__(
        self, batch: np.ndarray, call_model_args: Mapping[str, Any], expected_keys: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """`saliency`'s `call_model_function`."""
        from saliency import core

        number, batch = np.array(call_model_args["class"], "int32"), np.asarray(batch, "float32")
        found = {}
        if core.INPUT_OUTPUT_GRADIENTS in expected_keys:
            found[core.INPUT_OUTPUT_GRADIENTS] = np.asarray(self._gradient([batch], number)[2][0])
        if core.OUTPUT_LAYER_VALUES in expected_keys:
            found[core.OUTPUT_LAYER_VALUES] = self.logits(batch)[:, number]
        if core.CONVOLUTION_LAYER_VALUES in expected_keys:
            maps = self.maps(batch)
            found[core.CONVOLUTION_LAYER_VALUES] = maps
            found[core.CONVOLUTION_OUTPUT_GRADIENTS] = np.asarray(self._gradient_of_maps([maps], number)[2][0])
        return found


def _sum_of_logit(network: gradients.Network, arrays: Sequence[Any], number: Any) -> tuple[Any, Any]:
    return ops.sum(ops.take(network(arrays[0]), number, axis=1)), ()


def _explain(method: str, network: Explainer, x: np.ndarray, number: int, baseline: np.ndarray) -> np.ndarray:
    """The map `(height, width)` of one normalized image."""
    from saliency import core

    from interpretability.saliency_patches import patched_guided_ig

    call = {"call_model_function": network, "call_model_args": {"class": number}}
    if method == "gradcam":
        return core.GradCam().GetMask(x, should_resize=False, three_dims=False, **call)
    if method == "integrated_gradients":
        found = _integrated_gradients(network, x, number, baseline)
    elif method == "guided_ig":
        found = patched_guided_ig().GetMask(x, x_baseline=baseline, x_steps=STEPS, **call)
    elif method == "smoothgrad":
        found = core.GradientSaliency().GetSmoothedMask(x, magnitude=False, **call)
    elif method == "xrai":
        parameters = core.XRAIParameters(steps=50, algorithm="fast")
        return core.XRAI().GetMask(x, baselines=[baseline], batch_size=25, extra_parameters=parameters, **call)
    else:
        return _occlusion(network, x, number)
    return found.sum(axis=-1)


def _integrated_gradients(network: Explainer, x: np.ndarray, number: int, baseline: np.ndarray) -> np.ndarray:
    """With twice as many steps until they are complete: their sum is what the logit gains over the baseline."""
    from saliency import core

    gain = float(np.diff(network.logits(np.stack([baseline, x]))[:, number])[0])
    steps = STEPS
    while True:
        half = (x - baseline) / (2 * steps)  # so that the sum over both ends of the path is the midpoint rule
        found = core.IntegratedGradients().GetMask(
            *(x - half, network, {"class": number}, baseline + half), x_steps=steps, batch_size=50
        )
        found = found * steps / (steps - 1)
        missing = abs(found.sum() - gain)
        if missing <= COMPLETE * abs(gain):
            return found
        if steps >= MOST_STEPS:
            log.warning("integrated gradients of class %d add up to %.4g, not %.4g", number, found.sum(), gain)
            return found
        steps *= 2


def _occlusion(network: Explainer, x: np.ndarray, number: int) -> np.ndarray:
    """`saliency`'s occlusion, whose window visits every pixel alone, with a step of a third of the window and in
    batches: at each pixel the mean fall of the logit over the windows that hide it with the mean color."""
    height, width, _ = x.shape
    window = max(3, min(height, width) // 7)
    step = max(1, window // 3)
    places = [(top, left) for top in _starts(height, window, step) for left in _starts(width, window, step)]
    before = network.logits(x[None])[0, number]
    falls, counts = np.zeros((height, width)), np.zeros((height, width))
    for start in range(0, len(places), OCCLUSION_BATCH):
        part = places[start : start + OCCLUSION_BATCH]
        hidden = np.repeat(x[None], len(part), axis=0)
        for image, (top, left) in zip(hidden, part, strict=True):
            image[top : top + window, left : left + window] = 0
        for (top, left), after in zip(part, network.logits(hidden)[:, number], strict=True):
            falls[top : top + window, left : left + window] += before - after
            counts[top : top + window, left : left + window] += 1
    return falls / counts


def _starts(size: int, window: int, step: int) -> list[int]:
    return sorted({*range(0, size - window, step), size - window})


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds NumPy's global generator, which `saliency` draws from, and gives its state back."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)

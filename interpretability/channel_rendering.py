"""The channels of a layer, rendered several at a time."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from inception_v1.spec import check_choice
from interpretability import objectives
from interpretability.gradients import inference
from interpretability.image_files import to_pixels
from interpretability.network import fixed_size, inference_features
from interpretability.numbered_rendering import NumberedRenderer
from interpretability.parameterizations import SD
from interpretability.rendering import LEARNING_RATE, STEPS, default_size
from interpretability.transforms import Transform

TRANSFORMS: dict[str, list[Transform] | None] = {"standard": None, "none": []}


@dataclasses.dataclass(frozen=True)
class ChannelSettings:
    """How channels are rendered.

    Attributes:
        size: height and width of the images; None for the network's, at most 128.
        steps: for each image.
        seed: of the first images and transforms.
        transforms: "standard", or "none" for images that need not survive shifts, scaling and rotations.
        learning_rate: of Adam.
        tries: first images for each channel; the rendered image that activates it most is kept.
        sd: standard deviation of the first images' spectra: 0.01 begins near gray, 1 with images of much contrast,
            which differ more between tries.

    Raises:
        UserError: a value out of range.
    """

    size: int | None = None
    steps: int = STEPS
    seed: int = 0
    transforms: str = "standard"
    learning_rate: float = LEARNING_RATE
    tries: int = 1
    sd: float = SD

    def __post_init__(self) -> None:
        check_choice("transforms", self.transforms, TRANSFORMS)
        if (
            min(self.tries, self.steps, 1 if self.size is None else self.size) < 1
            or not self.learning_rate > 0
            or not self.sd > 0
        ):
            raise UserError(
                f"Expected size, steps and tries >= 1, and learning_rate and sd > 0; Received: {self.size}, "
                f"{self.steps}, {self.tries}, {self.learning_rate} and {self.sd}."
            )

    def complete(self, model: GoogLeNet) -> "ChannelSettings":
        """These settings with a size."""
        return dataclasses.replace(self, size=self.size or default_size(model))

    def check(self, model: GoogLeNet, layer: str) -> None:
        """Raises UserError for several tries at a layer of an auxiliary head, at another size than the network's."""
        if self.tries > 1 and fixed_size(model, [layer]) not in (None, (self.size, self.size)):
            raise UserError(
                f"Expected one try for {layer!r} at another size than the network's; Received: {self.tries}."
            )


class ChannelRenderer:
    """Renders channels of a layer, compiled once.

    Args:
        model: the network.
        layer: our name.
        batch: images at a time.
        settings: with a size.

    Raises:
        UserError: as `ChannelSettings.check`.
    """

    def __init__(self, model: GoogLeNet, layer: str, batch: int, settings: ChannelSettings) -> None:
        settings.check(model, layer)
        assert settings.size is not None
        self._settings, self._layer, self._pixels = settings, layer, model.spec.pixels
        self._render = NumberedRenderer(
            model,
            lambda numbers: objectives.channels(layer, numbers),
            settings.size,
            batch,
            TRANSFORMS[settings.transforms],
            settings.sd,
        )
        self._activations = inference(inference_features(model, [layer])) if settings.tries > 1 else None

    def __call__(self, numbers: Sequence[int], advance: Callable[[], None] = lambda: None) -> np.ndarray:
        """Images of at most `batch` channels, float32 `(len(numbers), size, size, channels)`."""
        steps, seed, learning_rate = self._settings.steps, self._settings.seed, self._settings.learning_rate
        best, most = np.zeros((len(numbers), *self._render.shape[1:]), "float32"), np.full(len(numbers), -np.inf)
        for attempt in range(self._settings.tries):
            images = self._render(numbers, steps, seed, learning_rate, attempt, advance)
            means = self._means(images, numbers)
            better = means > most
            best[better], most[better] = images[better], means[better]
        return best

    def _means(self, images: np.ndarray, channels: Sequence[int]) -> np.ndarray:
        """Each channel's mean in its image, as it will be stored."""
        if self._activations is None:  # there is nothing to compare
            return np.zeros(len(images))
        maps = self._activations(normalize(to_pixels(images), self._pixels))[self._layer]
        return maps.reshape(len(maps), -1, maps.shape[-1]).mean(axis=1)[np.arange(len(maps)), channels]

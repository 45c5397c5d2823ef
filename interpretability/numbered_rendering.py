"""Many images, one for each of the objectives that a number stands for, several at a time."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from inception_v1 import GoogLeNet
from interpretability import parameterizations
from interpretability.objectives import Objective
from interpretability.parameterizations import SD
from interpretability.rendering import LEARNING_RATE, STEPS, Renderer
from interpretability.transforms import Transform

log = logging.getLogger(__name__)


class NumberedRenderer:
    """Renders images whose objectives differ by a number, compiled once.

    An image depends on its number and the seed, not on the others that are rendered with it.

    Args:
        model: the network.
        objective: maps int32 `(batch,)` to the sum of the images' objectives.
        size: height and width of the images.
        batch: images at a time.
        transforms: as of `render`.
        sd: standard deviation of the first images' spectra.

    Attributes:
        shape: of a batch.

    Raises:
        UserError: as `render`.
    """

    def __init__(
        self,
        model: GoogLeNet,
        objective: Callable[[Any], Objective],
        size: int,
        batch: int,
        transforms: Sequence[Transform] | None = None,
        sd: float = SD,
    ) -> None:
        gray = 1 if model.spec.input_shape[2] == 1 else None
        self._alone, self._batch = parameterizations.image(size, sd=sd, channels=gray), batch
        several = parameterizations.image(size, batch=batch, sd=sd, channels=gray)
        self._render = Renderer(model, objective, several, transforms, example=np.zeros(batch, int))
        self.shape = several.shape

    def __call__(
        self,
        numbers: Sequence[int],
        steps: int = STEPS,
        seed: int = 0,
        learning_rate: float = LEARNING_RATE,
        attempt: int = 0,
        advance: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """Images of at most `batch` numbers, float32 `(len(numbers), size, size, channels)`.

        `attempt` is the number of the first image among those of one seed.
        """
        full = np.array([*numbers, *[numbers[-1]] * (self._batch - len(numbers))])
        spectra = [self._alone.initial(np.random.default_rng([seed, number, attempt]))[0] for number in full.tolist()]
        found = self._render(
            full,
            steps=steps,
            seed=seed,
            optimizer=keras.optimizers.Adam(learning_rate, epsilon=1e-8),
            initial=[np.concatenate(spectra, axis=1)],
            show=lambda value: advance(),
        )
        if found.stopped_at is not None:
            log.warning("images %s end after step %d", ", ".join(map(str, numbers)), found.stopped_at)
        return found.images[: len(numbers)]

"""`render`: images that maximize an objective of a network."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from interpretability import gradients, parameterizations
from interpretability.network import FeatureNetwork
from interpretability.objectives import Objective, as_objective
from interpretability.parameterizations import Parameterization
from interpretability.relu_gradient import REDIRECTED_STEPS
from interpretability.transforms import CollapseAlpha, CropOrPad, Transform, apply_all, draw_all, standard_transforms

log = logging.getLogger(__name__)

STEPS, LEARNING_RATE = 512, 0.05
LARGEST = 128  # pixels of an image whose size nobody gave


@dataclasses.dataclass(frozen=True)
class Rendering:
    """What `render` returns.

    Attributes:
        images: float32 `(batch, height, width, channels)`, 0-1.
        objective: its value in each step, float `(steps,)`.
        snapshots: {number of steps: the images after them}.
        stopped_at: the step whose objective was not finite, where there was one: `images` are then those of the last
            step before it.
    """

    images: np.ndarray
    objective: np.ndarray
    snapshots: Mapping[int, np.ndarray]
    stopped_at: int | None = None


class Renderer:
    """`render` for several objectives of one form, compiled once.

    Args:
        model: the network.
        objective: as of `render`, or a function from an array of numbers to an objective, for instance `lambda numbers:
            channels("inception_4d", numbers)`.
        parameterization: as of `render`.
        transforms: as of `render`.
        relu_gradient_override: as of `render`.
        example: where `objective` is a function, numbers as it will be called with.

    Raises:
        UserError: as `render`.
    """

    def __init__(
        self,
        model: GoogLeNet,
        objective: Objective | str | Callable[[Any], Objective],
        parameterization: Parameterization | None = None,
        transforms: Sequence[Transform] | None = None,
        relu_gradient_override: bool = True,
        example: np.ndarray | None = None,
    ) -> None:
        gradients.check_backend()
        self._objective = objective
        needs = self._objective_of(example).needs
        self._network = FeatureNetwork(model, [need.layer for need in needs])
        self._network.check(needs)
        self.parameterization = parameterization or parameterizations.image(
            default_size(model), channels=1 if self._network.channels == 1 else None
        )
        self._transforms = self._complete(transforms)
        self._override = relu_gradient_override
        self._step = gradients.value_and_gradient(self._loss, self._network.model)

    def __call__(
        self,
        numbers: np.ndarray | None = None,
        steps: int = STEPS,
        snapshots: Iterable[int] = (),
        seed: int = 0,
        optimizer: keras.optimizers.Optimizer | None = None,
        initial: Sequence[np.ndarray] | None = None,
        show: Callable[[float], None] | None = None,
    ) -> Rendering:
        """Renders.

        Args:
            numbers: for an objective that is a function of them.
            steps: as of `render`, like `snapshots`, `seed`, `optimizer` and `show`.
            initial: arrays of the parameterization to begin with; None draws them.
        """
        snapshots = sorted(set(snapshots))
        if steps < 1 or not set(snapshots) <= set(range(1, steps + 1)):
            raise UserError(f"Expected steps >= 1, and snapshots among them; Received: {steps}, {snapshots}.")
        self._network.check(self._objective_of(numbers).needs)
        start, changes = (np.random.default_rng([seed, stream]) for stream in range(2))
        arrays = self.parameterization.initial(start) if initial is None else initial
        variables = [keras.Variable(array, trainable=True, name=f"image_{i}") for i, array in enumerate(arrays)]
        optimizer = optimizer or keras.optimizers.Adam(LEARNING_RATE, epsilon=1e-8)  # TensorFlow 1's
        optimizer.build(variables)
        images, values = self._images(variables), list[float]()
        kept: dict[int, np.ndarray] = {}
        for step in range(steps):
            redirect = np.float32(self._override and step < REDIRECTED_STEPS)
            inputs = () if numbers is None else (np.asarray(numbers, "int32"),)
            loss, before, found = self._step(
                [variable.value for variable in variables], self._draw(changes), redirect, *inputs
            )
            value = -float(loss)
            if not np.isfinite(value):
                log.warning("the objective is %s in step %d; the images are those before it", value, step)
                return Rendering(images, np.array(values), kept, step)
            images = np.asarray(before)
            values.append(value)
            optimizer.apply(found, variables)
            if step + 1 in snapshots:
                kept[step + 1] = self._images(variables)
            if show:
                show(value)
        last = self._images(variables)
        if not np.isfinite(last).all():
            log.warning("the images after step %d are not finite; those before it are kept", steps - 1)
            return Rendering(images, np.array(values), kept, steps)
        return Rendering(last, np.array(values), kept)

    def _objective_of(self, numbers: Any) -> Objective:
        if not isinstance(self._objective, Objective | str) and callable(self._objective):
            return self._objective(numbers)
        return as_objective(self._objective)

    def _loss(self, network: Any, arrays: Any, draws: Any, redirect: Any, *numbers: Any) -> tuple[Any, Any]:
        """Minus the objective, and the images."""
        images = self.parameterization(arrays)
        transformed = apply_all(self._transforms, images, draws)
        size = self._network.fixed_size or ops.shape(transformed)[1:3]
        transformed = ops.reshape(transformed, (images.shape[0], *size, self._network.channels))  # TensorFlow forgot it
        activations = self._network.activations(network, images, transformed, redirect)
        return -self._objective_of(numbers[0] if numbers else None)(activations), images

    def _images(self, variables: Sequence[keras.Variable]) -> np.ndarray:
        return np.asarray(ops.convert_to_numpy(self.parameterization([variable.value for variable in variables])))

    def _draw(self, generator: np.random.Generator) -> Any:
        draws, size = draw_all(self._transforms, generator, self.parameterization.shape)
        self._check_size(size)
        return draws

    def _complete(self, transforms: Sequence[Transform] | None) -> list[Transform]:
        """The transforms, with those that the images and the network need; checked."""
        shape, fixed, channels = self.parameterization.shape, self._network.fixed_size, self._network.channels
        complete = list(standard_transforms(min(shape[1:3])) if transforms is None else transforms)
        of_alpha = shape[3] == channels + 1 and channels == 3
        if of_alpha and not any(isinstance(transform, CollapseAlpha) for transform in complete):
            complete.insert(0, CollapseAlpha())
        if not of_alpha and shape[3] != channels:
            raise UserError(f"Expected images of {channels} channels for this network; Received: {shape[3]}.")
        if fixed:
            complete.append(CropOrPad(*fixed))
        self._check_size(draw_all(complete, np.random.default_rng(0), shape)[1])
        return complete

    def _check_size(self, size: Sequence[int]) -> None:
        if min(size) < self._network.smallest:
            raise UserError(
                f"Expected images of at least {self._network.smallest} pixels after the transforms; Received: "
                f"{size[0]}x{size[1]}."
            )


def render(
    model: GoogLeNet,
    objective: Objective | str,
    parameterization: Parameterization | None = None,
    transforms: Sequence[Transform] | None = None,
    steps: int = STEPS,
    snapshots: Iterable[int] = (),
    seed: int = 0,
    optimizer: keras.optimizers.Optimizer | None = None,
    relu_gradient_override: bool = True,
    show: Callable[[float], None] | None = None,
) -> Rendering:
    """Renders images that maximize an objective of a network: what a neuron, a channel or a class responds to most.

    Args:
        model: the network; it stays as it is.
        objective: one of `objectives`, or "inception_4d:12" for a channel of a layer.
        parameterization: of the images; None for `parameterizations.image` at the network's size, at most 128 pixels.
        transforms: that change the images before each step; None for `standard_transforms`. An empty list for none.
        steps: number of steps. Lucid's threshold 512 is reached after 513.
        snapshots: numbers of steps after which to keep the images too.
        seed: of the first images and of the transforms.
        optimizer: that minimizes minus the objective; None for Adam with a learning rate of 0.05.
        relu_gradient_override: whether ReLUs let gradients through that they would block entirely, for 17 steps (see
            `redirected_relu`).
        show: called after each step with the objective's value.

    Returns:
        A `Rendering`. Where the objective is not finite, it ends with the last images before.

    Raises:
        UserError: an unknown layer, channel or class, images of other channels than the network's or too small for it,
            no step, or Keras on another backend than TensorFlow and JAX.

    Source: Olah et al. 2017, "Feature Visualization"; `lucid/optvis/render.py`.
    """
    renderer = Renderer(model, objective, parameterization, transforms, relu_gradient_override)
    return renderer(steps=steps, snapshots=snapshots, seed=seed, optimizer=optimizer, show=show)


def default_size(model: GoogLeNet) -> int:
    """Height and width of rendered images: the network's, but at most 128."""
    known = [n for n in model.spec.input_shape[:2] if n]
    return min([LARGEST, *known])

"""SGD and learning-rate schedules as recipes ask for them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf
from keras import ops

from inception_v1.keras_patches import OptimizerInternals
from training.recipe import Recipe, peak_learning_rate
from training.transfer import stage_factors


class Slots(Protocol):
    """One variable and what SGD keeps for it, wherever they are stored and updated."""

    def value(self) -> Any:
        """The variable's value."""

    def decay(self, fraction: Any) -> None:
        """Subtracts this fraction of the variable from it."""

    def momentum_step(self, gradient: Any, learning_rate: Any) -> None:
        """Updates the velocity by a gradient, and the variable by the velocity."""

    def average(self, momentum: Any) -> None:
        """Moves the exponential moving average toward the variable."""


@keras.saving.register_keras_serializable(package="googlenet_training")
class SGD(OptimizerInternals, keras.optimizers.SGD):
    """SGD with Caffe's weight decay, a learning rate for each variable, and an average that leaves the weights alone.

    Keras' own `weight_decay` multiplies every variable by the same learning rate, so that stages which train more
    slowly would still decay at the full rate, and parameter servers could not apply it where the variables are. So the
    decoupled decay is part of the update rule here.

    Args:
        learning_rate, momentum, nesterov: as in Keras.
        decay: fraction of each kernel, times its learning rate, that a step subtracts beside the gradient's update
            (decoupled, arXiv 1711.05101). Biases and normalization parameters do not decay.
        l2: Caffe's weight decay: `l2 * kernel` is added to the gradient, as of the penalty `l2 / 2 * sum(kernel ** 2)`.
        factors: beginnings or ends of variable paths ("inception_3a", "/bias") to factors of the learning rate. All
            that match are multiplied.
        average: momentum of an exponential moving average of the weights (Polyak averaging), or None. In the first
            steps it is `(1 + steps) / (10 + steps)`, as in `tf.train.ExponentialMovingAverage`, so that the initial
            weights are soon forgotten. Unlike Keras' `use_ema` the end of `fit` does not overwrite the weights.
        **kwargs: as in Keras.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        decay: float = 0.0,
        l2: float = 0.0,
        factors: Mapping[str, float] | None = None,
        average: float | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs |= {"use_ema": average is not None, "ema_momentum": average or 0.0}
        super().__init__(learning_rate, momentum, nesterov, **kwargs)
        self.decay, self.l2, self.factors, self.average = decay, l2, dict(factors or {}), average

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        tracked = self.tracked_variables[self.variable_index(variable)]  # TensorFlow passes its own variable
        learning_rate = ops.cast(learning_rate, variable.dtype)
        self.update(_KerasSlots(self, variable), tracked, ops.cast(gradient, variable.dtype), learning_rate)

    def update(self, slots: Slots, variable: keras.Variable, gradient: Any, learning_rate: Any) -> None:
        """One step of the update rule.

        Args:
            slots: where it is applied.
            variable: of the optimizer, whose path and name decide the learning rate and the decay.
            gradient: of the loss.
            learning_rate: of the step.
        """
        if (factor := self.factor(variable.path)) != 1:
            learning_rate = learning_rate * factor
        is_kernel = variable.name == "kernel"
        if is_kernel and self.l2:
            gradient = gradient + self.l2 * slots.value()
        if is_kernel and self.decay:
            slots.decay(learning_rate * self.decay)
        slots.momentum_step(gradient, learning_rate)

    def factor(self, path: str) -> float:
        """Factor of the learning rate for the variable of that path."""
        factor = 1.0
        for part, value in self.factors.items():
            if path.startswith(part) or path.endswith(part):
                factor *= value
        return factor

    def averages(self) -> dict[str, keras.Variable]:
        """Path of each variable to its average. Empty without `average`."""
        if self.average is None:
            return {}
        pairs = zip(self.tracked_variables, self.moving_averages, strict=True)
        return {variable.path: average for variable, average in pairs}

    def average_momentum(self, steps: Any) -> Any:
        """Momentum of the average in the step after so many."""
        steps = ops.cast(steps, "float32")
        return ops.where(steps == 0, 0.0, ops.minimum(self.average, (1 + steps) / (10 + steps)))

    def update_moving_averages(self, variables: Sequence[keras.Variable]) -> None:
        if self.average is None:
            return
        momentum = self.average_momentum(self.iterations)
        for variable in variables:
            _KerasSlots(self, variable).average(momentum)

    def momentum_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """SGD with momentum as Keras has it, on TensorFlow as one operation in place of ten."""
        if keras.backend.backend() != "tensorflow" or not self.momentum:
            super().update_step(gradient, variable, learning_rate)
            return
        velocity = self.momentums[self.variable_index(variable)].value
        weight = variable.value if isinstance(variable, keras.Variable) else variable
        fused_momentum_step(self, weight.handle, velocity.handle, gradient, learning_rate)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Does nothing: the average stays beside the weights."""

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for ours in ("use_ema", "ema_momentum"):
            config.pop(ours)
        return {**config, "decay": self.decay, "l2": self.l2, "factors": self.factors, "average": self.average}


def fused_momentum_step(
    optimizer: SGD, weight: tf.Tensor, velocity: tf.Tensor, gradient: Any, learning_rate: Any
) -> tf.Operation:
    """SGD with momentum as Keras has it, by one operation of TensorFlow.

    Args:
        optimizer: its momentum and whether it is Nesterov's.
        weight, velocity: handles of the variables that are updated.
        gradient: of the loss.
        learning_rate: of the step, of the gradient's type.
    """
    return tf.raw_ops.ResourceApplyKerasMomentum(
        var=weight,
        accum=velocity,
        lr=learning_rate,
        grad=gradient,
        momentum=tf.cast(optimizer.momentum, gradient.dtype),
        use_locking=True,
        use_nesterov=optimizer.nesterov,
    )


class _KerasSlots:
    """Variables of Keras, updated in this process on any backend."""

    def __init__(self, optimizer: SGD, variable: Any) -> None:
        self._optimizer, self._variable = optimizer, variable

    def value(self) -> Any:
        return self._variable

    def decay(self, fraction: Any) -> None:
        self._optimizer.assign_sub(self._variable, self._variable * fraction)

    def momentum_step(self, gradient: Any, learning_rate: Any) -> None:
        self._optimizer.momentum_step(gradient, self._variable, learning_rate)

    def average(self, momentum: Any) -> None:
        average = self._optimizer.moving_averages[self._optimizer.variable_index(self._variable)]
        momentum = ops.cast(momentum, self._variable.dtype)
        average.assign(self._variable + momentum * (average - self._variable))


@keras.saving.register_keras_serializable(package="googlenet_training")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from zero to the start of another schedule, which begins when it gets there.

    `keras.optimizers.schedules.CosineDecay` has a warm-up of its own; Keras' other schedules have none.

    Args:
        after: the other schedule.
        steps: of the rise.
    """

    def __init__(self, after: keras.optimizers.schedules.LearningRateSchedule, steps: int) -> None:
        self.after, self.steps = after, steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rising = self.after(0) * step / self.steps
        return ops.where(step < self.steps, rising, self.after(ops.maximum(step - self.steps, 0.0)))

    def get_config(self) -> dict[str, Any]:
        return {"after": keras.saving.serialize_keras_object(self.after), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Warmup":
        return cls(keras.saving.deserialize_keras_object(config["after"]), config["steps"])


def make_schedule(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over the steps of a run: warm-up, then `recipe.schedule`."""
    schedules, peak = keras.optimizers.schedules, peak_learning_rate(recipe)
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    rest = max(1, recipe.epochs * steps_per_epoch - warmup)
    if recipe.schedule == "cosine":
        if not warmup:
            return schedules.CosineDecay(peak, rest)
        return schedules.CosineDecay(0.0, rest, warmup_target=peak, warmup_steps=warmup)
    if recipe.schedule == "staircase":
        decay = schedules.ExponentialDecay(peak, 8 * steps_per_epoch, 0.96, staircase=True)
    else:
        decay = schedules.PolynomialDecay(peak, rest, end_learning_rate=0.0, power=0.5)
    return Warmup(decay, warmup) if warmup else decay


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> SGD:
    """SGD with the recipe's settings, not built yet."""
    factors = {"/bias": recipe.bias_rate} if recipe.bias_rate != 1 else {}
    if recipe.stage_rate != 1:
        factors |= stage_factors(recipe.stage_rate)
    return SGD(
        make_schedule(recipe, steps_per_epoch),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        decay=recipe.weight_decay,
        l2=recipe.l2,
        factors=factors,
        average=recipe.average,
    )

"""SGD with what the paper's recipe asks for and Keras' own lacks."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="googlenet_training")
class SGD(keras.optimizers.SGD):
    """SGD with Caffe's weight decay, a rate for each variable, and a Polyak average that leaves the weights alone.

    Args:
        learning_rate, momentum, nesterov: as in Keras.
        decay: share of each kernel, times the learning rate, that a step takes away beside the gradient's update
            (decoupled, arXiv 1711.05101). Biases and normalisation parameters do not decay.
        l2: Caffe's weight decay: `l2 * kernel` joins the gradient, as of the penalty `l2 / 2 * sum(kernel ** 2)`.
        rates: beginnings or ends of variable paths ("inception_3a", "/bias") to factors of the learning rate. All
            that match multiply.
        average: momentum of an exponential average of the weights (Polyak averaging), or None. While few steps are
            done it is `(1 + steps) / (10 + steps)`, as in `tf.train.ExponentialMovingAverage`, so that the initial
            weights are soon forgotten. Unlike Keras' `use_ema` the end of `fit` does not overwrite the weights.
        **kwargs: as in Keras.
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.0,
        nesterov=False,
        decay: float = 0.0,
        l2: float = 0.0,
        rates: Mapping[str, float] | None = None,
        average: float | None = None,
        **kwargs: Any,
    ):
        kwargs |= {"use_ema": average is not None, "ema_momentum": average or 0.0}
        super().__init__(learning_rate, momentum, nesterov, **kwargs)
        self.decay, self.l2, self.rates, self.average = decay, l2, dict(rates or {}), average

    def update_step(self, gradient, variable, learning_rate):
        known = self._trainable_variables[self._get_variable_index(variable)]  # TensorFlow hands over its own variable
        learning_rate = ops.cast(learning_rate, variable.dtype) * self.rate(known.path)
        gradient = ops.cast(gradient, variable.dtype)
        if known.name == "kernel" and self.l2:
            gradient += self.l2 * variable
        if known.name == "kernel" and self.decay:
            self.assign_sub(variable, variable * (learning_rate * self.decay))
        super().update_step(gradient, variable, learning_rate)

    def rate(self, path: str) -> float:
        """Factor of the learning rate for the variable of that path."""
        factor = 1.0
        for part, value in self.rates.items():
            if path.startswith(part) or path.endswith(part):
                factor *= value
        return factor

    def averages(self) -> dict[str, Any]:
        """Path of each variable to its average. Empty without `average`."""
        if self.average is None:
            return {}
        pairs = zip(self._trainable_variables, self._model_variables_moving_average, strict=True)
        return {variable.path: average for variable, average in pairs}

    def _update_model_variables_moving_average(self, trainable_variables):
        if self.average is None:
            return
        momentum = self.average_momentum(self.iterations)
        for variable in trainable_variables:
            average = self._model_variables_moving_average[self._get_variable_index(variable)]
            average.assign(variable + ops.cast(momentum, variable.dtype) * (average - variable))

    def average_momentum(self, steps):
        """Momentum of the average in the step after so many."""
        steps = ops.cast(steps, "float32")
        return ops.where(steps == 0, 0.0, ops.minimum(self.average, (1 + steps) / (10 + steps)))

    def finalize_variable_values(self, var_list):
        """Nothing: the average stays beside the weights."""

    def get_config(self):
        config = super().get_config()
        for ours in ("use_ema", "ema_momentum"):
            config.pop(ours)
        return {**config, "decay": self.decay, "l2": self.l2, "rates": self.rates, "average": self.average}


@keras.saving.register_keras_serializable(package="googlenet_training")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from zero to the start of another schedule, which begins when it gets there.

    Args:
        after: the other schedule.
        steps: of the rise.
    """

    def __init__(self, after: keras.optimizers.schedules.LearningRateSchedule, steps: int):
        self.after, self.steps = after, steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rising = self.after(0) * step / self.steps
        return ops.where(step < self.steps, rising, self.after(ops.maximum(step - self.steps, 0.0)))

    def get_config(self):
        return {"after": keras.saving.serialize_keras_object(self.after), "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["after"]), config["steps"])

"""GoogLeNet's search spaces for any tuner of Keras Tuner."""

from typing import Any

import keras
import keras_tuner as kt

from inception_v1 import GoogLeNet
from training.errors import UserError
from training.task import recipe_distillation
from training.train import compile_model, head_loss_weights
from tuning.space import Space


class GoogLeNetHyperModel(kt.HyperModel):
    """Builds and trains the networks of a space with any Keras Tuner tuner.

    A sample beyond the budget is scaled into it before the network is built: `model.spec` has the resulting widths.
    Weights, dropout and order follow from the recipe's seed, the same in each trial.

    Args:
        space: networks and recipes to choose from.
        steps_per_epoch: batches in an epoch, for the schedule of the learning rate over the recipe's epochs.

    Example:

        space = tuning.Space("branches", Spec("batchnorm", input_shape=(32, 32, 1), classes=10), Recipe(epochs=5))
        hypermodel = tuning.GoogLeNetHyperModel(space, steps_per_epoch=len(train))
        tuner = kt.RandomSearch(hypermodel, kt.Objective("val_main_accuracy", "max"), max_trials=10)
        tuner.search(train, validation_data=validation, epochs=5)
    """

    def __init__(self, space: Space, steps_per_epoch: int) -> None:
        super().__init__(name="googlenet")
        self.space, self._steps = space, steps_per_epoch

    def declare_hyperparameters(self, hp: kt.HyperParameters) -> None:
        """Adds the dimensions of the space."""
        hp.merge(self.space.hyperparameters())

    def build(self, hp: kt.HyperParameters) -> GoogLeNet:
        """The compiled network of a sample. Raises UserError where no factor brings it into the budget."""
        self.declare_hyperparameters(hp)
        asked = {d.name: hp.get(d.name) for d in self.space.dimensions}
        values = self.space.fit_to_budget(self.space.exact(asked))
        if values is None:
            raise UserError(f"Expected a sample that fits the budget; Received: {asked}.")
        spec, recipe = self.space.network(values), self.space.recipe_of(values)
        keras.utils.set_random_seed(recipe.seed)
        weights = head_loss_weights(recipe, spec)
        return compile_model(recipe, spec, self._steps, weights, recipe_distillation(recipe, spec))

    def fit(self, hp: kt.HyperParameters, model: GoogLeNet, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains as `keras.Model.fit`, from the seed of the recipe."""
        keras.utils.set_random_seed(self.space.recipe.seed)
        return model.fit(*args, **kwargs)

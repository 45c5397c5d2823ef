import keras
import numpy as np
import pytest

from interpretability.gradients import value_and_gradient
from interpretability.relu_gradient import REDIRECTED_STEPS, redirected_relu
from tests.oracles import lucid

pytestmark = pytest.mark.every_backend


def test_the_gradient_is_lucids_in_every_step():
    stored = lucid.case("relu")

    def weighted(network, arrays, redirect):
        y = redirected_relu(arrays[0], redirect)
        return keras.ops.sum(y * stored["upstream"]), y

    inputs = keras.Input((1,))
    gradient_of = value_and_gradient(weighted, keras.Model(inputs, inputs))
    for step in (0, 16, 17):
        _, y, (found,) = gradient_of([stored["x"]], np.float32(step < REDIRECTED_STEPS))
        np.testing.assert_array_equal(np.asarray(y), np.maximum(stored["x"], 0))
        np.testing.assert_allclose(np.asarray(found), stored[f"step {step}"], rtol=0, atol=1e-6, err_msg=str(step))
    assert not (stored["step 16"] == stored["step 17"]).all()

"""`render` on small networks, and its course against Lucid's."""

import keras
import numpy as np
import pytest

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from interpretability import Renderer, objectives, parameterizations, render, rendering
from interpretability.network import FeatureActivations
from interpretability.objectives import Objective
from interpretability.relu_gradient import redirected_relu
from tests.helpers.networks import trained_network
from tests.oracles import lucid

pytestmark = pytest.mark.usefixtures("few_blocks")


@pytest.fixture(scope="module")
def network():
    return trained_network("paper", input_shape=(64, 64, 3), aux=True, class_names=list("abcdefg"))


class TwoConvolutions:
    """The network of `lucid._trajectory` in place of a `FeatureNetwork`."""

    channels, fixed_size, smallest = 3, None, 1

    def __init__(self, model, layers):
        inputs = keras.Input((1,))
        self.model, self.stored = keras.Model(inputs, inputs), lucid.case("trajectory")

    def check(self, needs):
        pass

    def activations(self, network, images, transformed, redirect):
        x = transformed * 4 - 2
        for i in range(2):
            x = keras.ops.conv(x, self.stored[f"kernel{i}"], i + 1, "same", data_format="channels_last")
            x = redirected_relu(x + self.stored[f"bias{i}"], redirect)
        return FeatureActivations({"last": x})


@pytest.mark.every_backend
def test_the_course_is_lucids_beyond_the_end_of_the_redirected_gradients(monkeypatch):
    monkeypatch.setattr(rendering, "FeatureNetwork", TwoConvolutions)
    stored = lucid.case("trajectory")
    renderer = Renderer(None, "last:2", parameterizations.image(10, 8), [])
    found = renderer(steps=lucid.STEPS, snapshots=(1, 5, 17, 20), initial=[stored["spectrum"]])
    np.testing.assert_allclose(np.stack([s[0] for s in found.snapshots.values()]), stored["images"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.objective, stored["objective"], rtol=1e-4, atol=1e-5)
    assert found.objective[0] == 0 < found.objective[-1]  # a ReLU that was dead


@pytest.mark.every_backend
def test_an_image_follows_from_its_seed():
    network = GoogLeNet("plain", input_shape=(32, 32, 3), stem="small", width_multiplier=0.1, aux=False)
    renderer = Renderer(network, "conv2d2_pre_relu:12", parameterizations.image(40, 33))
    one, same, other = (renderer(steps=2, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.images, same.images)
    assert np.abs(one.images - other.images).max() > 0.01
    assert one.images.shape == (1, 33, 40, 3)
    assert one.images.min() >= 0
    assert one.images.max() <= 1
    assert one.objective.shape == (2,)


@pytest.mark.parametrize(
    "objective",
    [
        objectives.neuron("inception_4d", 5) + objectives.deepdream("pool2"),
        objectives.direction("conv2_3x3_pre_relu", np.ones(16), cossim_pow=1),
        objectives.class_logit("aux1_logits", "c") - 1e-4 * objectives.total_variation(),
        objectives.diversity("inception_4a") * -1,
    ],
    ids=lambda objective: objective.name,
)
def test_objectives_rise_within_three_steps(network, objective):
    image = parameterizations.image(48, batch=2)
    found = render(network, objective, image, [], steps=4)
    assert found.objective[3] > found.objective[0]


def test_gray_networks_and_transparent_images():
    gray = trained_network("plain", input_shape=(28, 28, 1), stem="small")
    assert render(gray, "conv2_3x3:2", steps=2).images.shape == (1, 28, 28, 1)
    color = trained_network("plain", input_shape=(32, 32, 3), stem="small")
    found = render(color, "conv2_3x3:2", parameterizations.image(32, alpha=True), steps=2)
    assert found.images.shape == (1, 32, 32, 4)


def test_an_image_does_not_depend_on_the_others_of_its_batch(network):
    generator = np.random.default_rng(0)
    spectra = [parameterizations.image(32).initial(generator)[0] for _ in range(3)]

    def images(places):
        renderer = Renderer(
            network,
            lambda numbers: objectives.channels("pool2", numbers),
            parameterizations.image(32, batch=len(places)),
            example=np.arange(len(places)),
        )
        return renderer(
            np.array(places) * 3, steps=3, initial=[np.concatenate([spectra[i] for i in places], axis=1)]
        ).images

    np.testing.assert_allclose(images([0, 1])[1], images([2, 1])[1], rtol=0, atol=1e-5)


def test_a_value_that_is_not_finite_ends_it_with_the_last_good_image(network, caplog):
    def fails_later(activations):
        mean = keras.ops.mean(activations("input"))
        return mean + keras.ops.where(keras.ops.abs(mean - start) > 1e-3, np.nan, 0.0)

    image = parameterizations.image(32)
    start = float(render(network, objectives.L1(), image, [], steps=1).objective[0]) / (32 * 32 * 3)
    found = render(network, Objective(fails_later), image, [], steps=9)
    assert 1 <= found.stopped_at < 9
    assert len(found.objective) == found.stopped_at
    assert np.isfinite(found.images).all()
    assert abs(found.images.mean() - start) <= 1e-3
    assert f"nan in step {found.stopped_at}" in caplog.text


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("inception_4f:1", r"Expected a layer .* Received: 'inception_4f'. Did you mean 'inception_4"),
        ("mixed4f:1", r"Received: 'mixed4f'. Did you mean 'mixed4"),
        ("inception_4d:900", r"Expected a channel from 0 to \d+ of 'inception_4d'; Received: 900. Did you mean \d+\?"),
        (objectives.class_logit("main_logits", "z"), r"Expected the name of a class; Received: 'z'"),
        (objectives.direction("conv2_3x3", np.ones(3)), r"Expected a vector of 16 channels"),
    ],
)
def test_what_the_network_lacks_is_named(network, objective, message):
    with pytest.raises(UserError, match=message):
        render(network, objective, steps=1)


def test_images_that_do_not_fit_are_refused(network):
    with pytest.raises(UserError, match="Expected images of 3 channels for this network; Received: 1"):
        render(network, "inception_4a:1", parameterizations.image(32, channels=1))
    with pytest.raises(UserError, match=r"Expected images of at least \d+ pixels after the transforms"):
        render(network, "inception_4a:1", parameterizations.image(8))
    with pytest.raises(UserError, match="Expected steps >= 1"):
        render(network, "inception_4a:1", steps=2, snapshots=[3])
    headless = trained_network("plain", include_top=False)
    with pytest.raises(UserError, match="Received: 'main_logits'"):
        render(headless, "main_logits:1")
    with pytest.raises(UserError, match="Expected a GoogLeNet"):
        render(headless.layers[0], "inception_4a:1")

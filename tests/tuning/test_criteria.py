import numpy as np
import pytest

from inception_v1.dependencies import channels
from inception_v1.preprocessing import normalize
from tests.helpers.networks import logits_of, patch_images, trained_network
from tuning.criteria import CRITERIA, best_channels, cluster_scores
from tuning.training_examples import Examples

pytestmark = pytest.mark.usefixtures("few_blocks")

LAYER, DEAD, TWIN = "conv2_3x3", 3, (1, 6)  # a channel without filter; two of which one is half of the other
SIZE = (32, 32, 1)


@pytest.fixture(scope="module")
def network():
    model = trained_network("batchnorm", input_shape=SIZE, stem="small", classes=3)
    layer, norm = model.get_layer(LAYER), model.get_layer(f"{LAYER}_bn")
    (kernel,), (gamma, beta, mean, variance) = layer.get_weights(), norm.get_weights()
    kernel[..., DEAD] = 0
    for array in (gamma, beta, mean):
        array[DEAD] = 0
    kernel[..., TWIN[1]] = kernel[..., TWIN[0]]
    for array, factor in ((gamma, 0.5), (beta, 0.5), (mean, 1), (variance, 1)):
        array[TWIN[1]] = factor * array[TWIN[0]]
    layer.set_weights([kernel])
    norm.set_weights([gamma, beta, mean, variance])
    return model


@pytest.fixture(scope="module")
def examples(network):
    images = normalize(patch_images(32, *SIZE, seed=2), network.spec.pixels)
    return Examples(images, np.arange(32) % 3)


@pytest.mark.parametrize("name", CRITERIA)
def test_every_channel_gets_a_score_and_a_dead_one_the_lowest(name, network, examples):
    if name == "geometric-median":
        pytest.skip("ranks distances alone")
    found = CRITERIA[name](network, examples)
    assert {conv: scores.shape for conv, scores in found.items()} == {
        conv: (width,) for conv, width in channels(network.spec).items()
    }
    assert np.argmin(found[LAYER]) == DEAD


def test_scores_of_filters_are_what_their_papers_say(network, examples):
    kernel, gamma = network.get_layer(LAYER).kernel.numpy(), network.get_layer(f"{LAYER}_bn").gamma.numpy()
    filters = kernel.reshape(-1, kernel.shape[-1]).T
    np.testing.assert_allclose(CRITERIA["magnitude"](network, examples)[LAYER], np.abs(filters).sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(CRITERIA["batch-norm"](network, examples)[LAYER], np.abs(gamma))
    distances = np.linalg.norm(filters[:, None] - filters[None], axis=-1).sum(axis=1)
    np.testing.assert_allclose(CRITERIA["geometric-median"](network, examples)[LAYER], distances, rtol=1e-4)


def test_the_first_order_change_is_that_of_the_loss(network, examples):
    """Against the difference of the losses with a channel a little stronger and a little weaker."""
    batch = Examples(examples.images[:16], examples.labels[:16])
    found = CRITERIA["taylor"](network, batch)[LAYER]
    norm = network.get_layer(f"{LAYER}_bn")
    gamma, beta, *rest = before = norm.get_weights()

    def loss(channel, factor):
        scale = np.where(np.arange(len(gamma)) == channel, factor, 1)
        norm.set_weights([gamma * scale, beta * scale, *rest])
        logits = np.asarray(logits_of(network, batch.images, ["main"])["main"], "float64")
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -logits[np.arange(16), batch.labels].mean()

    for channel in np.argsort(-found)[:3]:
        slope = (loss(channel, 1.0005) - loss(channel, 0.9995)) / 0.001  # before the next ReLU has its kink
        assert np.sqrt(found[channel]) == pytest.approx(abs(slope), rel=0.1)
    norm.set_weights(before)


def test_the_rank_is_that_of_the_feature_maps(network, examples):
    maps = np.asarray(network.features([LAYER])(examples.images)[LAYER])
    expected = [[np.linalg.matrix_rank(image[..., channel]) for channel in range(maps.shape[-1])] for image in maps]
    np.testing.assert_allclose(CRITERIA["rank"](network, examples)[LAYER], np.mean(expected, axis=0))


def test_of_channels_that_fire_together_the_weaker_goes(network, examples):
    scores = CRITERIA["correlation"](network, examples)[LAYER]
    assert list(np.argsort(scores)[:2]) == [DEAD, TWIN[1]]
    assert scores[TWIN[1]] == pytest.approx(0, abs=1e-6)


def test_the_best_channels_represent_their_clusters():
    """Three clusters, the members of which differ in strength."""
    random = np.random.default_rng(0)
    sources = random.normal(size=(3, 1000))
    cluster, strength = np.array([0, 1, 2, 0, 1, 2, 0]), np.array([1, 3, 1, 2, 1, 2, 3])
    rows = strength[:, None] * (sources[cluster] + 0.1 * random.normal(size=(7, 1000)))
    scores = cluster_scores(np.cov(rows))
    kept = best_channels({"a": scores}, {"a": 3})["a"]
    np.testing.assert_array_equal(kept, [1, 5, 6])
    assert scores.max() == np.inf
    np.testing.assert_array_equal(cluster_scores(np.diag([0.0, 1.0, 0.0])), [-1, np.inf, -1])


def test_a_family_without_scales_is_refused(examples):
    with pytest.raises(ValueError, match=r"scales in batch normalization.*Received: variant='plain'"):
        CRITERIA["batch-norm"](trained_network("plain", input_shape=SIZE), examples)

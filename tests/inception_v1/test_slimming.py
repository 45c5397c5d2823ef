import numpy as np
import pytest

from inception_v1 import GoogLeNet, Spec, build_googlenet, cost
from inception_v1.dependencies import IMAGE, channels, narrower, sources
from inception_v1.preprocessing import normalize
from inception_v1.slimming import masked_weights, remove_channels
from tests.helpers.networks import logits_of, patch_images, trained_network
from tests.oracles import images, torch_pruning, torchvision

pytestmark = pytest.mark.usefixtures("few_blocks")  # where a test is not about all nine
WIDE = {  # no layer as narrow as one channel, and both an even and an odd number of pixels
    "input_shape": (47, 48, 3),
    "aux": True,
    "classes": 5,
}
CASES = {
    "batchnorm": {},
    "plain": {},
    "torchvision": {},
    "slim": {},
    "paper": {"lrn": (5, 0.0, 0.75, 1.0)},  # without its band; see below
    "onnx_zoo": {"lrn": (5, 0.0, 0.75, 1.0), "input_shape": (64, 65, 3)},
    "inception5h": {"lrn": (5, 0.0, 0.75, 1.0)},
    "cifar": {"stem": "cifar", "input_shape": (33, 32, 3)},
}


def random_channels(spec, seed=0):
    """About two thirds of the channels of every convolution."""
    random = np.random.default_rng(seed)
    kept = {
        name: np.sort(random.choice(width, -(-2 * width // 3), replace=False)) for name, width in channels(spec).items()
    }
    return kept


def masked(model, kept):
    """A copy of a network with the other channels at zero."""
    copy = type(model)(**model.spec.to_dict())
    copy.set_weights(model.get_weights())
    for name, weights in masked_weights(model, kept).items():
        copy.get_layer(name).set_weights(weights)
    return copy


def inputs(model):
    return normalize(patch_images(3, *model.spec.input_shape, seed=1), model.spec.pixels)


def differences(model, *others):
    """For each other network the largest difference of the logits of any head, beside their size where above 1."""
    x, heads = inputs(model), model.spec.heads
    expected = logits_of(model, x, heads)
    assert np.std(expected["main"], axis=0).mean() > 0.05  # the images differ
    found = []
    for other in others:
        logits = logits_of(other, x, heads)
        scaled = [
            np.abs(logits[head] - expected[head]).max() / max(1.0, np.abs(expected[head]).max()) for head in heads
        ]
        found.append(float(np.max(scaled)))
    return found


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, marks=pytest.mark.every_backend if variant in ("paper", "cifar") else ())
        for variant in CASES
    ],
)
def test_a_slimmed_network_computes_what_the_masked_one_does(variant):
    model = trained_network(variant, **WIDE | CASES[variant])
    kept = random_channels(model.spec)
    slim, reference = remove_channels(model, kept), masked(model, kept)
    slimmed, original = differences(reference, slim, model)
    assert slimmed < 1e-5
    assert original > 1e-3  # the mask changes something
    assert {name: len(rows) for name, rows in kept.items()} == channels(slim.spec)
    assert slim.count_params() == cost(slim.spec).params < cost(model.spec).params


def test_the_naive_module_hands_its_input_on():
    model = trained_network("plain", reduction=False, **WIDE)
    kept = random_channels(model.spec)
    (found,) = differences(masked(model, kept), remove_channels(model, kept))
    assert found < 1e-5


def test_a_network_without_a_top_is_slimmed_too():
    model = trained_network("batchnorm", include_top=False, pooling="avg")
    kept = random_channels(model.spec)
    x = inputs(model)
    rows = np.concatenate(  # which of the features of 5b stay
        [
            offset + kept[f"inception_5b_{end}"]
            for offset, end in zip(
                np.cumsum([0, *(channels(model.spec)[f"inception_5b_{end}"] for end in ("1x1", "3x3", "5x5"))]),
                ("1x1", "3x3", "5x5", "pool_proj"),
            )
        ]
    )
    expected = np.asarray(masked(model, kept)(x))[:, rows]
    np.testing.assert_allclose(remove_channels(model, kept)(x), expected, atol=1e-5)


def test_response_normalization_sees_other_neighbors():
    """With channels of the stem removed the band of each is another; below the stem nothing changes."""
    model = trained_network("paper", **WIDE)
    kept = random_channels(model.spec)
    below = {name: rows for name, rows in kept.items() if name.startswith("inception")}
    (found,) = differences(masked(model, below), remove_channels(model, below))
    assert found < 1e-5
    strong = trained_network("paper", **WIDE, lrn=(5, 0.1, 0.75, 1.0))
    (found,) = differences(masked(strong, kept), remove_channels(strong, kept))
    assert found > 1e-5


@pytest.mark.usefixtures("all_blocks")
def test_logits_are_those_of_torch_pruning(tmp_path):
    """The same channels of torchvision's network, removed by another library."""
    weights = torchvision.write(tmp_path)
    model = build_googlenet(weights=weights, input_shape=(*torch_pruning.SIZE, 3))
    slim = remove_channels(model, torch_pruning.kept_channels(channels(model.spec)))
    x = images(*torch_pruning.SIZE, torchvision.SCALE)
    found, expected = logits_of(slim, x, slim.spec.heads), np.load(torch_pruning.FIXTURE)
    for head in slim.spec.heads:
        assert expected[head].std() > 0.1
        np.testing.assert_allclose(found[head][:, : torchvision.STORED], expected[head], rtol=0, atol=1e-5)


def test_a_slimmed_network_of_the_pruning_literature_trains():
    model = GoogLeNet("cifar", stem="cifar", input_shape=(32, 32, 3), width_multiplier=0.1, aux=False)
    slim = remove_channels(model, random_channels(model.spec))
    slim.compile("sgd", run_eagerly=True)
    before = slim.get_weights()
    loss = slim.train_on_batch(inputs(model), np.array([0, 3, 9]))[0]
    assert 0 < loss < 20
    assert any((old != new).any() for old, new in zip(before, slim.get_weights(), strict=True))


@pytest.mark.usefixtures("all_blocks")
def test_who_reads_whom():
    found = sources(Spec())
    assert found["conv1_7x7_s2"] == IMAGE
    assert found["inception_3a_3x3"] == ("inception_3a_3x3_reduce",)
    block = tuple(f"inception_4a_{end}" for end in ("1x1", "3x3", "5x5", "pool_proj"))
    readers = {name for name, reads in found.items() if reads == block}
    heads = {f"inception_4b_{end}" for end in ("1x1", "3x3_reduce", "5x5_reduce", "pool_proj")}
    assert readers == heads | {"aux1_conv"}
    assert found["main_logits"] == tuple(name.replace("4a", "5b") for name in block)
    assert sources(Spec("cifar", stem="cifar"))["inception_3a_5x5"] == ("inception_3a_5x5_first",)
    assert not {"aux1_conv", "main_logits"} & sources(Spec(include_top=False)).keys()


def test_the_spec_alone():
    spec = Spec("cifar", stem="cifar", input_shape=(32, 32, 3), width_multiplier=0.5)
    slim = narrower(spec, {name: width - 1 for name, width in channels(spec).items()})
    assert {name: width + 1 for name, width in channels(slim).items()} == channels(spec)
    assert slim.width_multiplier == 0.5  # of the auxiliary heads


@pytest.fixture(scope="module")
def network_of_the_pruning_literature(few_blocks):
    return GoogLeNet("cifar", stem="cifar", input_shape=(32, 32, 3), width_multiplier=0.1)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"conv3": [0]}, "Expected convolutions of the body; Received: conv3"),
        ({"conv1_3x3": []}, "indices of the 16 channels of conv1_3x3, at least one"),
        ({"conv1_3x3": [0, 16]}, "ascending indices"),
        ({"conv1_3x3": [1, 0]}, "ascending indices"),
        ({"conv1_3x3": [-1, 0]}, "ascending indices"),
        ({"conv1_3x3": [0.5]}, "ascending indices"),
        ({"inception_3b_5x5": [0, 1]}, "as many channels in inception_3b_5x5_first as in inception_3b_5x5"),
    ],
)
def test_what_cannot_be_kept_is_refused(kept, message, network_of_the_pruning_literature):
    with pytest.raises(ValueError, match=message):
        remove_channels(network_of_the_pruning_literature, kept)

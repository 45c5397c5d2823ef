"""Contributions of branches, against activation x gradient and networks without the branch computed in another way."""

import keras
import numpy as np
import pytest
from keras import ops

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from inception_v1.fold_batchnorm import inference_copy
from interpretability import BranchExplainer, ablations_of_split, branch_contributions, branches
from interpretability.branches import shares
from interpretability.gradients import inference, value_and_gradient
from tests.helpers.networks import patch_images, trained_network

IMAGES = patch_images(2, 64, 64, 3, seed=3)
PIXELS = np.float32([123, 117, 104])
ENDS = ("1x1", "3x3", "5x5", "pool_proj")


@pytest.fixture(scope="module")
def network():
    return trained_network("paper", input_shape=(64, 64, 3), aux=True)


@pytest.fixture(scope="module")
def explainer(network):
    return BranchExplainer(network)


def activation_times_gradient(network, head, block, classes):
    """Sums over the whole output of a block, by a model that begins there; and by branch."""
    features = inference_copy(network.features([block, f"{head}_logits"]))
    maps = inference(features)(IMAGES - PIXELS)[block]
    rest = keras.Model(features.output[block], features.output[f"{head}_logits"])

    def logits(model, arrays, classes):
        return ops.sum(ops.take_along_axis(model(arrays[0]), classes[:, None], axis=1)), ()

    gradient = np.asarray(value_and_gradient(logits, rest)([maps], np.array(classes, "int32"))[2][0])
    widths = [network.get_layer(f"{block}_{end}").filters for end in ENDS]
    parts = np.split(maps * gradient, np.cumsum(widths)[:-1], axis=-1)
    return (maps * gradient).sum(axis=(1, 2, 3)), np.stack([part.sum(axis=(1, 2, 3)) for part in parts], axis=1)


@pytest.mark.parametrize(("head", "block", "count"), [("main", "inception_4e", 9), ("aux1", "inception_3a", 3)])
def test_contributions_of_a_block_add_up_to_its_activation_times_gradient(network, explainer, head, block, count):
    explainer = explainer if head == "main" else BranchExplainer(network, head)
    found = explainer(IMAGES, [5, 0])
    assert found.values.shape == (2, count, 4)
    total, by_branch = activation_times_gradient(network, head, block, [5, 0])
    values = found.values[:, found.blocks.index(block)]
    assert np.abs(values).min() > 1e-4
    np.testing.assert_allclose(values.sum(axis=1), total, rtol=0, atol=1e-4)
    np.testing.assert_allclose(values, by_branch, rtol=0, atol=1e-4)
    logits = np.asarray(network.features([f"{head}_logits"])(IMAGES - PIXELS)[f"{head}_logits"])
    np.testing.assert_allclose(found.logits, logits[[0, 1], [5, 0]], rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="Expected a class from 0 to 6 for each image"):
        explainer(IMAGES, [1])
    with pytest.raises(UserError, match=r"Expected images of shape \('images', 64, 64, 3\)"):
        explainer(IMAGES[:, :, :, :1])
    with pytest.raises(UserError, match="at least one; Received: \\(0, 64"):
        explainer(IMAGES[:0])


def test_ablation_is_the_logits_fall_without_the_branch(network, explainer):
    found = explainer(IMAGES[:1], ablation=True)
    logits = network.features(["main_logits"])
    before = np.asarray(logits(IMAGES[:1] - PIXELS)["main_logits"])[0]
    assert found.classes.tolist() == [before.argmax()]
    conv = network.get_layer("inception_4c_3x3")
    weights = conv.get_weights()
    conv.set_weights([weight * 0 for weight in weights])
    fall = (before - np.asarray(logits(IMAGES[:1] - PIXELS)["main_logits"])[0])[found.classes[0]]
    conv.set_weights(weights)
    assert abs(fall) > 1e-3
    np.testing.assert_allclose(found.ablation[0, found.blocks.index("inception_4c"), 1], fall, rtol=0, atol=1e-4)


def test_ablations_of_a_split_compare_each_class_with_the_average_image(explainer, monkeypatch):
    images, labels = patch_images(5, 64, 64, 3), np.array([1, 0, 6, 6, 1])
    found = ablations_of_split(explainer, [(images[:3], labels[:3]), (images[3:], labels[3:])])
    monkeypatch.setattr(branches, "BATCH", 2)
    falls = explainer.falls(images)
    assert found.labels.tolist() == labels.tolist()
    for image, label in enumerate(labels):
        np.testing.assert_allclose(found.values[image], falls[image, ..., label], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.reference[6], falls[..., 6].mean(axis=0), rtol=0, atol=1e-4)


@pytest.mark.every_backend
def test_contributions_to_a_networks_last_block_and_its_bias_are_the_logit():
    """Behind it are a mean and one dense layer, so that ablation is activation x gradient there."""
    network = GoogLeNet("plain", input_shape=(40, 40, 3), width_multiplier=0.05, aux=False, classes=4, reduction=False)
    found = branch_contributions(network, patch_images(2, 72, 50, 3), ablation=True)
    bias = np.asarray(ops.convert_to_numpy(network.get_layer("main_logits").bias))[found.classes]
    np.testing.assert_allclose(found.values[:, -1].sum(axis=1) + bias, found.logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.ablation[:, -1], found.values[:, -1], rtol=0, atol=1e-4)
    assert np.abs(found.values[:, -1]).max() > 0


def test_shares_add_up_to_one_in_absolute_value():
    np.testing.assert_allclose(shares(np.array([[[1.0, -2, 1, 0], [0, 0, 0, 0]]])), [[[0.25, -0.5, 0.25, 0], [0] * 4]])


def test_a_head_that_is_not_there_is_refused(network):
    with pytest.raises(UserError, match=r"heads \['main', 'aux1', 'aux2'\]; Received: 'aux3'"):
        branch_contributions(network, IMAGES, head="aux3")

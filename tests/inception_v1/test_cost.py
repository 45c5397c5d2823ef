import math

import keras
import pytest

from inception_v1 import Spec, build_googlenet, cost
from inception_v1.spec import VARIANTS


def built_macs(model):
    """Multiply-accumulates counted on the layers of a built model."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            total += math.prod(layer.kernel.shape) * layer.output.shape[1] * layer.output.shape[2]
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total


def check(**arguments):
    with keras.StatelessScope(initialize_variables=False):  # shapes alone are looked at
        model = build_googlenet(**arguments)
    counted = cost(model)
    assert counted.params == model.count_params()
    assert counted.trainable == sum(math.prod(w.shape) for w in model.trainable_weights)
    assert counted.macs == built_macs(model)
    if model.spec.include_top:
        net = model.classifier()
        assert counted.without_aux().params == net.count_params()
        assert counted.without_aux().macs == built_macs(net)
    shapes = {row.name: row.output for row in counted.rows if row.kind not in ("main head", "auxiliary head")}
    assert shapes == {name: tuple(model.get_layer(name).output.shape[1:]) for name in shapes}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("input_shape", [(224, 224, 3), (231, 225, 1)])
def test_cost_equals_the_built_model(variant, input_shape):
    check(variant=variant, input_shape=input_shape)


@pytest.mark.parametrize(
    "arguments",
    [
        {"width_multiplier": 0.5, "input_shape": (32, 32, 1), "classes": 10},
        {"stem": "small", "input_shape": (28, 28, 1), "classes": 10},
        {"stem": "small", "variant": "torchvision", "input_shape": (45, 64, 2), "width_multiplier": 1.3},
        {"reduction": False, "width_multiplier": 0.25},
        {"reduction": False, "variant": "batchnorm", "input_shape": (64, 64, 3)},
        {"widths": {"3a": (8, 16, 24, 32, 40, 48), "5b": (1, 2, 3, 4, 5, 6)}, "variant": "slim"},
        {"stem_widths": (5, 6, 7), "width_multiplier": 0.5},
        {"stem_widths": (9,), "stem": "cifar", "variant": "cifar", "input_shape": (33, 32, 3), "reduction": False},
        {"aux": False, "classes": 1},
        {"include_top": False, "pooling": "avg"},
        {"variant": "onnx_zoo", "input_shape": (61, 75, 3)},
        {"variant": "slim", "input_shape": (1, 1, 3)},
    ],
)
def test_cost_equals_the_built_model_for_other_arguments(arguments):
    check(**arguments)


@pytest.mark.parametrize(
    ("variant", "classes", "params_main", "trainable_main", "params_all", "trainable_all"),
    [
        ("paper", None, 6_998_552, 6_998_552, 13_378_280, 13_378_280),
        ("torchvision", None, 6_639_464, 6_624_904, 13_019_960, 13_004_888),
        ("slim", None, 6_633_209, 6_618_649, None, None),
        ("onnx_zoo", None, 6_998_552, 6_998_552, None, None),
        ("inception5h", None, 7_066_380, 7_066_380, 13_461_996, 13_461_996),
    ],
)
def test_published_counts(variant, classes, params_main, trainable_main, params_all, trainable_all):
    counted = cost(Spec(variant, classes=classes))
    assert counted.without_aux().params == params_main
    assert counted.without_aux().trainable == trainable_main
    if params_all is not None:
        assert (counted.params, counted.trainable) == (params_all, trainable_all)


def test_the_counts_of_the_pruning_literature():
    """HRank, FilterSketch, EPruner and others slim this network on CIFAR-10."""
    counted = cost(Spec("cifar", stem="cifar", input_shape=(32, 32, 3))).without_aux()
    assert (counted.trainable, counted.macs) == (6_166_250, 1_521_756_160)


def test_published_multiply_accumulates():
    counted = cost(Spec())
    assert counted.without_aux().macs == 1_582_671_872
    assert counted.macs == 1_591_044_096


def test_reductions_save_most_of_the_work():
    assert cost(Spec(reduction=False)).macs > 7 * cost(Spec()).macs


def test_unknown_size_cannot_be_counted():
    with pytest.raises(ValueError, match="fixed height and width"):
        cost(Spec(aux=False, input_shape=(None, None, 3)))

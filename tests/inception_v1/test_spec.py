import dataclasses
import json

import pytest

from inception_v1.spec import BLOCKS, STEMS, VARIANTS, Spec, Widths, round_width, smallest_input

# arXiv 1409.4842, Table 1: channels after each block.
TABLE_1 = {"3a": 256, "3b": 480, "4a": 512, "4b": 512, "4c": 512, "4d": 528, "4e": 832, "5a": 832, "5b": 1024}


def test_blocks_join_to_the_channels_of_table_1():
    assert {name: w.conv1 + w.conv3 + w.conv5 + w.pool for name, w in BLOCKS.items()} == TABLE_1


@pytest.mark.parametrize(("channels", "rounded"), [(1, 8), (11.9, 8), (12, 16), (20, 24), (96, 96), (100, 104)])
def test_round_width(channels, rounded):
    assert round_width(channels) == rounded


def test_width_multiplier_leaves_published_widths_at_one_and_rounds_elsewhere():
    assert Spec("inception5h").block_widths()["4a"].conv3 == 204
    assert Spec("inception5h", width_multiplier=0.5).block_widths()["4a"].conv3 == 104
    assert all(n % 8 == 0 and n >= 8 for w in Spec(width_multiplier=0.1).block_widths().values() for n in w)


def test_explicit_widths_are_final_and_partial():
    widths = Spec(widths={"4c": (1, 2, 3, 4, 5, 6)}, width_multiplier=0.5).block_widths()
    assert widths["4c"] == Widths(1, 2, 3, 4, 5, 6)
    assert widths["3a"] == Widths(32, 48, 64, 8, 16, 16)
    assert Spec(width_multiplier=0.5).all_stem_widths() == (32, 32, 96)
    assert Spec(width_multiplier=0.5, stem_widths=(1, 2, 3)).all_stem_widths() == (1, 2, 3)


def test_spec_is_completed_from_the_family():
    assert (Spec("slim").classes, Spec("slim").dropout) == (1001, (0.2, 0.7))
    assert Spec(dropout=0.1).dropout == (0.1, 0.7)
    assert Spec("slim", dropout=(None, 0)).dropout == (0.2, 0.0)
    assert Spec(dropout=(0.1, 0.2)).dropout == (0.1, 0.2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_spec_survives_json(variant):
    spec = Spec(variant, input_shape=(97, 64, 1), classes=7, widths={"5b": [8] * 6}, stem_widths=[3, 4, 5], dropout=0.3)
    assert Spec(**json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "papr"}, r"variant.*'paper', 'batchnorm'.*'papr'.*mean 'paper'"),
        ({"stem": "smal"}, r"stem.*'imagenet', 'small'.*mean 'small'"),
        ({"pooling": "mean"}, "pooling"),
        ({"classifier_activation": "sigmoid"}, "classifier_activation"),
        ({"classes": 0}, r"classes.*>= 1; Received: classes=0"),
        ({"classes": 2.5}, "classes"),
        ({"classes": True}, "classes"),
        ({"widths": {"3c": (1,) * 6}}, r"block.*'3a'.*'5b'.*'3c'"),
        ({"widths": {"3a": (1,) * 5}}, r"'3a'.*six integers.*\(1, 1, 1, 1, 1\)"),
        ({"widths": {"3a": (1, 1, 0, 1, 1, 1)}}, r"six integers >= 1"),
        ({"widths": [1, 2]}, "map block names"),
        ({"stem_widths": (64, 192)}, r"3 integers >= 1, .*'imagenet' stem; Received: stem_widths=\(64, 192\)"),
        ({"stem_widths": (192, 0), "stem": "small"}, "2 integers >= 1"),
        ({"width_multiplier": 0}, "width_multiplier"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": (0.1, 0.2, 0.3)}, "dropout"),
        ({"input_shape": (224, 224)}, "height, width, channels"),
        ({"input_shape": (224, 224, None)}, "height, width, channels"),
        ({"input_shape": (30, 224, 3)}, r"at least 31 .*\(30, 224, 3\)"),
        ({"input_shape": (None, None, 3)}, r"fixed height and width.*aux=False"),
    ],
)
def test_bad_arguments_say_what_was_expected_and_received(arguments, message):
    with pytest.raises(ValueError, match=message):
        Spec(**arguments)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stem", STEMS)
def test_smallest_input_is_the_smallest(variant, stem):
    smallest = smallest_input(Spec(variant, stem=stem))
    at_least = dataclasses.replace(Spec(variant, stem=stem), input_shape=(smallest, smallest, 3))
    assert at_least.input_shape[0] == smallest
    if smallest > 1:
        with pytest.raises(ValueError, match=f"at least {smallest}"):
            dataclasses.replace(at_least, input_shape=(smallest - 1, smallest, 3))


def test_every_variant_but_the_floor_one_takes_32_pixels():
    assert {v for v in VARIANTS if smallest_input(Spec(v)) > 32} == {"onnx_zoo"}


def test_aux_grid_is_adaptive_where_five_by_five_does_not_fit():
    spec = Spec()
    assert spec.aux_grid(14, 14) == (4, 4)
    assert spec.aux_grid(5, 8) == (1, 2)
    assert spec.aux_grid(4, 14) is None
    assert Spec("torchvision").aux_grid(14, 14) is None

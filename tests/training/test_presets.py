import dataclasses
import json

import pytest

from inception_v1 import build_googlenet
from training.presets import PRESETS, preset, preset_for_source, preset_for_weights
from training.recipe import Recipe
from training.task import recipe_spec


@pytest.mark.parametrize(
    ("name", "channels", "variant", "stem", "width", "size", "pixels"),
    [
        ("digits", 1, "batchnorm", "imagenet", 0.5, 32, "signed"),
        ("fashion", 1, "batchnorm", "small", 0.5, 28, "signed"),
        ("cifar", 3, "cifar", "cifar", 1.0, 32, "signed"),
        ("paper", 3, "paper", "imagenet", 1.0, 224, "caffe"),
        ("quick", 3, "paper", "imagenet", 1.0, 224, "caffe"),
        ("modern", 3, "batchnorm", "imagenet", 1.0, 224, "signed"),
        ("fine-tune", 3, "batchnorm", "imagenet", 1.0, 224, "signed"),
    ],
)
def test_presets_make_their_networks(name, channels, variant, stem, width, size, pixels):
    spec = recipe_spec(preset(name), channels, classes=10)
    assert (spec.variant, spec.stem, spec.width_multiplier, spec.pixels) == (variant, stem, width, pixels)
    assert (spec.input_shape, spec.classes) == ((size, size, channels), 10)
    assert spec.heads == (("main",) if name == "cifar" else ("main", "aux1", "aux2"))


def test_a_recipe_is_the_same_after_json(tmp_path):
    path = tmp_path / "mine.json"
    mine = dataclasses.replace(PRESETS["fashion"], learning_rate=0.3, train_split="train[:10]")
    path.write_text(json.dumps(dataclasses.asdict(mine)))
    assert preset(str(path)) == mine


@pytest.mark.parametrize(
    ("variant", "changes"), [("slim", {}), ("plain", {"learning_rate": 0.003, "freeze_batch_norm": False})]
)
def test_weights_decide_image_size_and_learning_rate_of_fine_tuning(variant, changes, tmp_path):
    path, tuned = tmp_path / "net.keras", PRESETS["fine-tune"]
    build_googlenet(variant, input_shape=(40, 40, 1), width_multiplier=0.1, aux=False).save(path)
    assert preset_for_weights(path) == dataclasses.replace(tuned, image_size=40, **changes)
    (tmp_path / "broken.keras").write_bytes(path.read_bytes()[:100])
    for other in ("broken.keras", "absent.keras"):
        assert preset_for_weights(tmp_path / other) == tuned


def test_unknown_recipes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'digits', 'fashion'.*'digitz'.*mean 'digits'"):
        preset("digitz")
    other = tmp_path / "other.json"
    other.write_text('{"speed": 3}')
    for path in (tmp_path / "absent.json", other):
        with pytest.raises(ValueError, match=f"recipe in '{path}'"):
            preset(str(path))


def test_a_source_gets_its_own_recipe_or_the_papers_augmentation():
    assert preset_for_source("digits") == PRESETS["digits"]
    assert preset_for_source("folder:x") == Recipe(source="folder:x", paper_augment=True)

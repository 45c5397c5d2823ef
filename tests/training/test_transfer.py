import dataclasses

import keras
import numpy as np
import pytest

import training
from inception_v1 import build_googlenet
from tests.helpers.images import make_folder
from training import transfer
from training.optimizer import make_optimizer
from training.presets import PRESETS
from training.run_folder import RunFolder
from training.train import train

SMALL = {"input_shape": (32, 32, 1), "width_multiplier": 0.1}


@pytest.fixture(scope="module")
def pretrained():
    model = build_googlenet("batchnorm", classes=4, pixels="torch", **SMALL)
    random = np.random.default_rng(0)
    for variable in model.variables:  # other statistics than a new network's, with which its ReLUs stay active
        if variable.name == "moving_mean":
            variable.assign(random.normal(0, 1e-3, variable.shape))
        if variable.name == "moving_variance":
            variable.assign(random.uniform(0.1, 0.3, variable.shape))
    return model


def by_path(model):
    return {v.path: v.numpy() for v in model.variables if "seed_generator" not in v.path}


def test_fine_tune_trains_new_heads_and_what_is_not_frozen(pretrained):
    """A step changes nothing that is frozen, the statistics of its batch normalization included."""
    before = by_path(pretrained)
    tuned = training.fine_tune(pretrained, classes=7, freeze_until="4e")
    assert tuned.output["main"].shape == (None, 7)
    start = by_path(tuned)
    for path, value in start.items():
        assert "_logits/" in path or np.array_equal(value, before[path]), path
    tuned.compile("sgd")
    x, y = np.random.default_rng(0).normal(size=(14, 32, 32, 1)), np.arange(14) % 7
    tuned.fit(x, y, batch_size=7, verbose=0)
    moved = {
        path.split("_")[0] + path.split("_")[1][:1] for path, v in by_path(tuned).items() if (v != start[path]).any()
    }
    assert moved == {"inception5", "aux1c", "aux1f", "aux1l", "aux2c", "aux2f", "aux2l", "mainl"}
    for path, value in by_path(pretrained).items():
        np.testing.assert_array_equal(value, before[path])


def test_auxiliary_layers_are_new_where_the_feature_map_has_another_size(pretrained):
    tuned = training.fine_tune(pretrained, classes=4, input_shape=(160, 160, 1))
    np.testing.assert_array_equal(
        tuned.get_layer("inception_5b_1x1").kernel.numpy(), pretrained.get_layer("inception_5b_1x1").kernel.numpy()
    )
    assert tuned.get_layer("aux1_fc").kernel.shape != pretrained.get_layer("aux1_fc").kernel.shape


def test_bad_arguments_are_refused(pretrained, tmp_path):
    with pytest.raises(ValueError, match=r"freeze_until to be one of .*'4e'.*'4x'"):
        training.fine_tune(pretrained, 3, freeze_until="4x")
    with pytest.raises(ValueError, match=r"same body.*conv1_7x7_s2 .*3.*not.*1"):
        transfer.copy_body(build_googlenet("batchnorm", input_shape=(32, 32, 3), width_multiplier=0.1), pretrained)
    other = tmp_path / "other.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(other)
    (tmp_path / "broken.keras").write_bytes(b"PK")
    for path, message in (
        (tmp_path / "absent.keras", "no such file"),
        (tmp_path / "broken.keras", "broken.keras"),
        (other, "holds a Sequential"),
    ):
        with pytest.raises(ValueError, match=message):
            transfer.read_network(path)


def test_stages_unfreeze_from_the_heads_down(pretrained):
    unfreeze = transfer.Unfreeze("4e", epochs=6)
    unfreeze.set_model(pretrained)
    borders = [unfreeze.border(epoch) for epoch in range(8)]
    assert borders == ["4e", "4e", *["inception_3b"] * 2, *["conv2_3x3"] * 2, None, None]


def test_lower_stages_learn_more_slowly():
    recipe = dataclasses.replace(PRESETS["digits"], stage_rate=0.5, bias_rate=2.0)
    sgd = make_optimizer(recipe, steps_per_epoch=10)
    expected = {
        "main_logits/kernel": 1,
        "inception_5b_1x1/kernel": 0.5,
        "inception_4a_1x1/kernel": 0.25,
        "inception_3a_1x1/bias": 0.25,
        "conv1_7x7_s2/kernel": 0.0625,
    }
    assert {path: sgd.factor(path) for path in expected} == expected


def test_a_run_starts_from_a_file_and_unfreezes(pretrained, data_dir, tmp_path):
    """The body is frozen in the first of two epochs and trains in the second."""
    path = tmp_path / "pretrained.keras"
    pretrained.save(path)
    recipe = dataclasses.replace(
        PRESETS["digits"],
        data_dir=data_dir,
        weights=str(path),
        freeze_until="5b",
        unfreeze_epochs=1,
        train_split="train[:128]",
        epochs=2,
        warmup_epochs=0,
    )
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(by_path(self.model))

    train(recipe, tmp_path / "run", show=lambda *_: Watch())
    recorded = RunFolder(tmp_path / "run")
    assert (recorded.recipe().width_multiplier, recorded.recipe().pixels) == (0.1, "torch")
    spec = recorded.model().spec
    assert (spec.pixels, spec.class_names) == ("torch", tuple("0123456789"))
    before = by_path(pretrained)
    for name, value in before.items():
        if name.startswith(("conv", "inception")):
            np.testing.assert_array_equal(value, seen[0][name])
            assert not np.array_equal(value, seen[1][name]) or name.endswith(("beta", "gamma")), name
    with pytest.raises(ValueError, match="weights with freeze_until"):
        dataclasses.replace(recipe, weights=None)
    color = dataclasses.replace(recipe, source=make_folder(tmp_path / "images"), train_split=None)
    with pytest.raises(ValueError, match="1 channels"):
        train(color, tmp_path / "other")
    assert not (tmp_path / "other").exists()

import dataclasses

import keras
import numpy as np
import pytest

import training
from inception_v1 import build_googlenet
from inception_v1.preprocessing import normalize
from tests.helpers.images import make_folder, photograph_parts
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
    tuned = training.fine_tune(pretrained, classes=7, freeze_until="4d")
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


def statistics(model):
    return {path: value for path, value in by_path(model).items() if "moving_" in path and path.startswith("incep")}


def test_batch_norm_stays_as_new_images_make_it(pretrained):
    """Their mean and variance at the first convolution, and other statistics in every block that is not frozen."""
    images = np.random.default_rng(0).normal(3, 2, (12, 32, 32, 1)).astype("float32")
    tuned = training.fine_tune(pretrained, classes=3, freeze_until="3b", images=images, aux=False)
    start = by_path(tuned)
    for path, value in statistics(tuned).items():
        assert np.array_equal(value, by_path(pretrained)[path]) == path.startswith("inception_3"), path
    tuned.compile("sgd")
    tuned.fit(images, np.arange(12) % 3, batch_size=4, verbose=0)
    for path, value in by_path(tuned).items():
        if "_bn/" in path:
            np.testing.assert_array_equal(value, start[path], err_msg=path)
    whole = training.fine_tune(pretrained, classes=3, images=images, aux=False)
    features = np.asarray(keras.Model(whole.input, whole.get_layer("conv1_7x7_s2").output)(images))
    norm = whole.get_layer("conv1_7x7_s2_bn")
    np.testing.assert_allclose(norm.moving_mean, features.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, features.var((0, 1, 2)), rtol=1e-4)


def test_statistics_are_averages_over_batches(pretrained):
    batches = np.random.default_rng(0).normal(size=(3, 8, 32, 32, 1)).astype("float32")
    measured = []
    for some in (batches[:1], batches[1:2], batches[2:], batches):
        model = training.fine_tune(pretrained, classes=3, freeze_batch_norm=False, aux=False)
        momentum = model.get_layer("conv1_7x7_s2_bn").momentum
        transfer.estimate_statistics(model, some)
        measured.append(by_path(model)["conv1_7x7_s2_bn/moving_mean"])
        assert model.get_layer("conv1_7x7_s2_bn").momentum == momentum
    np.testing.assert_allclose(measured[3], np.mean(measured[:3], axis=0), atol=1e-6)


def photographs(names, first, last):
    """Parts of photographs, at half their size, and which photograph each is of."""
    parts = [photograph_parts(name, 64)[first:last, ::2, ::2] for name in names]
    return np.asarray(normalize(np.concatenate(parts), "signed")), np.repeat(
        np.arange(len(names)), list(map(len, parts))
    )


@pytest.mark.usefixtures("all_blocks")
def test_twenty_parts_of_each_photograph_are_enough_for_a_trained_network():
    """In the family whose momentum of 0.9997 would keep the statistics of batch normalization where they were, and
    the network at a guess (25 %). So little training before ends at 90 % top-1 or more with three of four seeds, and at
    75 % with the other."""

    def sgd(learning_rate):
        return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)

    x, y = photographs(["astronaut", "camera", "chelsea", "china", "motorcycle_left", "rocket"], 0, 60)
    model = build_googlenet("slim", input_shape=(32, 32, 3), classes=6, width_multiplier=0.2, aux=False)
    model.compile(sgd(0.05))
    model.fit(x, y, epochs=10, batch_size=16, verbose=0)

    names = ["coffee", "grass", "hubble_deep_field", "ihc"]
    x, y = photographs(names, 0, 20)
    tuned = training.fine_tune(model, classes=4, images=x)
    tuned.compile(sgd(keras.optimizers.schedules.CosineDecay(0.02, 150)))
    tuned.fit(np.concatenate([x, x[:, :, ::-1]]), np.tile(y, 2), epochs=15, batch_size=16, verbose=0)
    x, y = photographs(names, 20, 60)
    assert np.mean(np.argmax(tuned.predict(x, verbose=0)["main"], axis=1) == y) >= 0.9


def test_auxiliary_layers_are_new_where_the_feature_map_has_another_size(pretrained):
    tuned = training.fine_tune(pretrained, classes=4, input_shape=(160, 160, 1))
    np.testing.assert_array_equal(
        tuned.get_layer("inception_5b_1x1").kernel.numpy(), pretrained.get_layer("inception_5b_1x1").kernel.numpy()
    )
    assert tuned.get_layer("aux1_fc").kernel.shape != pretrained.get_layer("aux1_fc").kernel.shape


def test_bad_arguments_are_refused(pretrained, tmp_path):
    with pytest.raises(ValueError, match=r"freeze_until to be one of .*'4d'.*'4x'"):
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
    unfreeze = transfer.Unfreeze("4d", epochs=6)
    unfreeze.set_model(pretrained)
    borders = [unfreeze.border(epoch) for epoch in range(8)]
    assert borders == ["4d", "4d", *["inception_3b"] * 2, *["conv2_3x3"] * 2, None, None]


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


@pytest.mark.usefixtures("undrawn")
def test_a_run_starts_from_a_file_and_unfreezes(pretrained, data_dir, tmp_path):
    """The body is frozen in the first of two epochs and trains in the second, but its batch normalization, whose
    statistics are new where it was not frozen."""
    path = tmp_path / "pretrained.keras"
    pretrained.save(path)
    recipe = dataclasses.replace(
        PRESETS["digits"],
        data_dir=data_dir,
        weights=str(path),
        freeze_until="4d",
        unfreeze_epochs=1,
        freeze_batch_norm=True,
        learning_rate=0.01,
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
            trains = name.startswith("inception_5") and not name.endswith(("gamma", "beta"))
            assert np.array_equal(value, seen[0][name]) == (not trains), name
            assert np.array_equal(seen[0][name], seen[1][name]) == ("_bn/" in name), name
    with pytest.raises(ValueError, match="weights with freeze_until"):
        dataclasses.replace(recipe, weights=None)
    color = dataclasses.replace(recipe, source=make_folder(tmp_path / "images"), train_split=None)
    with pytest.raises(ValueError, match="1 channels"):
        train(color, tmp_path / "other")
    assert not (tmp_path / "other").exists()

"""Runs on every backend: see test_backends.py.

Layers and tracing take most of the time of such small networks: they have a few blocks where a test is not about all
nine, and what does not depend on tracing is called eagerly.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from inception_v1 import GoogLeNet, Spec, build_googlenet
from inception_v1.losses import Crossentropy, TopKAccuracy
from inception_v1.spec import VARIANTS
from tests.helpers import blocks
from tests.helpers.networks import EAGERLY, call

pytestmark = pytest.mark.usefixtures("few_blocks")
SMALL = {"input_shape": (32, 32, 1), "classes": 7, "width_multiplier": 0.1}
CLASSES = 7


def images(count, shape=(32, 32, 1)):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")


def labels(count):
    return np.random.default_rng(1).integers(0, CLASSES, count)


def numpy_crossentropy(probabilities, y, weight=None):
    losses = -np.log(probabilities[np.arange(len(y)), y].astype("float64"))
    return np.mean(losses if weight is None else losses * weight)


# The network


@pytest.fixture(scope="module")
def paper():
    with blocks.all_blocks():
        return build_googlenet()


def test_published_counts_of_the_built_model(paper):
    assert (paper.count_params(), paper.classifier().count_params()) == (13_378_280, 6_998_552)


@pytest.mark.every_backend
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("aux", [True, False])
def test_outputs_are_named_and_are_probabilities(variant, aux):
    size = 64 if variant == "onnx_zoo" else 32
    model = build_googlenet(variant, **{**SMALL, "input_shape": (size, size + 1, 3)}, aux=aux)
    outputs = call(model, images(2, (size, size + 1, 3)))
    assert set(outputs) == ({"main", "aux1", "aux2"} if aux else {"main"})
    for output in outputs.values():
        assert output.shape == (2, CLASSES)
        np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-5)


def test_heads_sit_on_4a_and_4d(paper):
    model = paper
    for head, block, channels in (("aux1", "inception_4a", 512), ("aux2", "inception_4d", 528)):
        assert model.get_layer(f"{head}_pool").input is model.get_layer(block).output
        assert model.get_layer(block).output.shape == (None, 14, 14, channels)
    assert model.get_layer("main_pool").input is model.get_layer("inception_5b").output


@pytest.mark.usefixtures("all_blocks")
@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("pooling", "shape"), [(None, (None, 7, 7, 1024)), ("avg", (None, 1024)), ("max", (None, 1024))]
)
def test_features_without_a_top(pooling, shape):
    model = build_googlenet(include_top=False, pooling=pooling)
    assert model.output.shape == shape
    assert not any("aux" in layer.name for layer in model.layers)
    with pytest.raises(ValueError, match="main head"):
        model.classifier()


@pytest.mark.every_backend
def test_logits_have_the_probabilities_of_the_softmax():
    model = build_googlenet(**SMALL, classifier_activation=None)
    other = build_googlenet(**SMALL)
    other.set_weights(model.get_weights())
    x = images(2)
    logits, probabilities = call(model, x), call(other, x)
    for head in logits:
        np.testing.assert_allclose(ops.softmax(logits[head]), probabilities[head], atol=1e-6)


@pytest.mark.every_backend
def test_classifier_shares_weights_and_returns_one_tensor():
    model = build_googlenet(**SMALL)
    net = model.classifier()
    x = images(3)
    np.testing.assert_array_equal(call(net, x), call(model, x)["main"])
    model.set_weights([w + 0.01 for w in model.get_weights()])
    np.testing.assert_array_equal(call(net, x), call(model, x)["main"])
    assert type(net) is not GoogLeNet


@pytest.mark.usefixtures("all_blocks")
@pytest.mark.parametrize("size", [(224, 224), (225, 225), (64, 97), (225, 232)])
@pytest.mark.parametrize(
    ("variant", "rounding"), [("paper", "ceil"), ("onnx_zoo", "floor"), ("torchvision", "ceil"), ("cifar", "centered")]
)
def test_pools_round_as_the_family_does_at_even_and_odd_sizes(variant, rounding, size):
    model = build_googlenet(variant, input_shape=(*size, 3), width_multiplier=0.1, aux=False, reduction=False)
    kernels = {"pool1": 3, "pool2": 3, "pool3": 3, "pool4": VARIANTS[variant].pool4_size}
    ends = {}
    for name in kernels:
        pool = model.get_layer(name)
        pad = next((layer for layer in model.layers if layer.name == f"{name}_pad"), None)
        ends[name] = (pool.input if pad is None else pad.input, pool.output)
    maps = keras.Model(model.inputs, ends)(images(1, (*size, 3)))
    for name, (before, after) in maps.items():
        np.testing.assert_array_equal(after, max_pool(np.asarray(before), kernels[name], rounding))


def max_pool(x, kernel, rounding, stride=2):
    """NumPy: windows that start inside, cut off at the border (ceil) or left out (floor), or begin in it (centered)."""
    if rounding == "centered":
        x, rounding = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), "floor"
    height, width = x.shape[1:3]
    count = {"ceil": lambda n: -(-(n - kernel) // stride) + 1, "floor": lambda n: (n - kernel) // stride + 1}[rounding]
    windows = [
        [
            x[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel].max(axis=(1, 2))
            for j in range(count(width))
        ]
        for i in range(count(height))
    ]
    return np.stack([np.stack(row, axis=1) for row in windows], axis=1)


@pytest.mark.parametrize(("variant", "aux"), [("paper", False), ("torchvision", True), ("slim", False)])
def test_unknown_size_gives_the_numbers_of_a_fixed_one(variant, aux):
    """Traced for the second size, no size is known any more."""
    arguments = {"width_multiplier": 0.1, "classes": CLASSES, "aux": aux}
    free = build_googlenet(variant, input_shape=(None, None, 3), **arguments)
    for size in (32, 33):
        fixed = build_googlenet(variant, input_shape=(size, size + 3, 3), **arguments)
        fixed.set_weights(free.get_weights())
        x = images(2, (size, size + 3, 3))
        expected = call(fixed, x)
        for head, output in free.predict(x, verbose=0).items():
            np.testing.assert_allclose(output, expected[head], atol=1e-6)


@pytest.mark.every_backend
def test_conv1_padding_differs_at_even_sizes_only():
    for size, same in ((32, False), (33, True)):
        outputs = []
        for variant in ("batchnorm", "slim"):
            model = build_googlenet(variant, input_shape=(size, size, 3), width_multiplier=0.1, aux=False)
            model.get_layer("conv1_7x7_s2").set_weights([np.ones((7, 7, 3, 8), "float32")])
            conv1 = keras.Model(model.inputs, model.get_layer("conv1_7x7_s2").output)
            outputs.append(np.asarray(conv1(images(1, (size, size, 3)))))
        assert np.allclose(*outputs, atol=1e-4) == same


# Saving


@pytest.mark.every_backend
def test_config_is_the_builders_arguments():
    import inspect

    model = build_googlenet("slim", **SMALL, widths={"3a": (8, 8, 8, 8, 8, 8)}, dropout=0.1)
    assert set(model.get_config()) == set(inspect.signature(build_googlenet).parameters) - {"weights"}
    assert GoogLeNet.from_config(model.get_config()).spec == model.spec


@pytest.mark.every_backend
def test_a_clone_that_would_be_no_googlenet_is_refused():
    model = build_googlenet("plain", **SMALL)
    with pytest.raises(ValueError, match=r"Expected GoogLeNet\.from_config\(model\.get_config\(\)\)"):
        keras.models.clone_model(model)
    copies = [keras.models.clone_model(model, clone_function=lambda layer: layer.from_config(layer.get_config()))]
    copies.append(keras.models.clone_model(model.classifier()))
    assert [copy.count_params() for copy in copies] == [model.count_params(), model.classifier().count_params()]


def test_keras_own_export_needs_no_call_before(tmp_path):
    import onnxruntime

    model = build_googlenet("plain", **SMALL, aux=False)
    model.export(tmp_path / "net.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 1)).astype("float32")
    predicted = session.run(None, {session.get_inputs()[0].name: images})[0]
    np.testing.assert_allclose(predicted, model(images)["main"], atol=1e-5)


RELOAD = """
import sys, numpy as np, keras
import inception_v1
model = keras.saving.load_model(sys.argv[1])
assert type(model) is inception_v1.GoogLeNet and model.compiled
x, y = np.load(sys.argv[2]), np.load(sys.argv[3])
outputs = model(x)
np.save(sys.argv[4], np.stack([outputs[head] for head in ("main", "aux1", "aux2")]))
print(repr(model.evaluate(x, y, verbose=0, return_dict=True)["loss"]))
"""


@pytest.mark.usefixtures("all_blocks")
def test_keras_file_reloads_in_a_new_process(tmp_path):
    model = build_googlenet("paper", **SMALL, widths={"4a": (8, 8, 8, 8, 8, 16)})
    model.compile("sgd", run_eagerly=True)
    x, y = images(9), labels(9)
    model.fit(x, y, batch_size=9, verbose=0)
    names = [str(tmp_path / name) for name in ("model.keras", "x.npy", "y.npy", "out.npy")]
    model.save(names[0])
    np.save(names[1], x)
    np.save(names[2], y)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, *names], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    outputs = call(model, x)
    for head, again in zip(("main", "aux1", "aux2"), np.load(names[3])):
        np.testing.assert_allclose(again, outputs[head], atol=1e-6)
    assert float(done.stdout) == pytest.approx(model.evaluate(x, y, verbose=0, return_dict=True)["loss"], abs=1e-5)


# Training


@pytest.mark.parametrize("variant", [pytest.param("paper", marks=pytest.mark.every_backend), "batchnorm"])
def test_total_loss_is_the_weighted_sum_of_the_heads(variant):
    model = build_googlenet(variant, **SMALL)
    model.compile("sgd", run_eagerly=EAGERLY)
    x, y = images(10), labels(10)
    outputs = call(model, x)
    losses = {head: numpy_crossentropy(outputs[head], y) for head in outputs}
    total = losses["main"] + 0.3 * losses["aux1"] + 0.3 * losses["aux2"]
    logs = model.evaluate(x, y, batch_size=10, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(total, abs=1e-6 * max(1, total))
    for head in outputs:
        assert logs[f"{head}_loss"] == pytest.approx(losses[head], abs=1e-5)
        assert logs[f"{head}_accuracy"] == pytest.approx(np.mean(outputs[head].argmax(axis=1) == y))
        top5 = np.argsort(-outputs[head], axis=1)[:, :5]
        assert logs[f"{head}_top5_accuracy"] == pytest.approx(np.mean((top5 == y[:, None]).any(axis=1)))


def label_kinds(y):
    one_hot = np.eye(CLASSES, dtype="float32")[y]
    return {
        "integers": y,
        "column": y[:, None],
        "one-hot": one_hot,
        "dict": {"main": y, "aux1": y, "aux2": y},
        "dict of one-hot": {"main": one_hot, "aux1": one_hot, "aux2": one_hot},
    }


@pytest.fixture(scope="module")
def compiled():
    """A compiled network whose weights no test changes, and its numbers for ten images with integer labels."""
    model = build_googlenet(**SMALL)
    model.compile("sgd")
    return model, model.test_on_batch(images(10), labels(10), return_dict=True)


@pytest.fixture(scope="module")
def eager(compiled):
    """The same network, run eagerly where that is faster."""
    model = build_googlenet(**SMALL)
    model.set_weights(compiled[0].get_weights())
    model.compile("sgd", run_eagerly=EAGERLY)
    return model


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.every_backend) if kind == "dict" else kind
        for kind in label_kinds(labels(10))
    ],
)
def test_every_kind_of_label_gives_the_same_numbers(kind, compiled, eager):
    model, expected = eager, compiled[1]
    x, y = images(10), labels(10)
    given = label_kinds(y)[kind]
    model.reset_metrics()
    assert model.test_on_batch(x, given, return_dict=True) == pytest.approx(expected, abs=1e-6)
    # Batches of 4, 4 and 2: each image counts once. Keras' losses by head do not: it weighs every batch the same.
    batched = model.evaluate(x, given, batch_size=4, verbose=0, return_dict=True)
    exact = {name for name in expected if not name.endswith("_loss")}
    assert {name: batched[name] for name in exact} == pytest.approx({name: expected[name] for name in exact}, abs=1e-5)


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_datasets_train_like_arrays():
    tf = pytest.importorskip("tensorflow")
    x, kinds = images(10), label_kinds(labels(10))
    results = []
    model = build_googlenet(**SMALL, dropout=(0.0, 0.0))
    initial = model.get_weights()
    for data, eagerly in (
        ({"x": x, "y": kinds["integers"], "batch_size": 4, "shuffle": False}, True),
        ({"x": tf.data.Dataset.from_tensor_slices((x, kinds["integers"])).batch(4)}, True),
        ({"x": tf.data.Dataset.from_tensor_slices((x, kinds["dict"])).batch(4)}, False),
    ):
        model.set_weights(initial)
        model.compile(keras.optimizers.SGD(0.01), run_eagerly=eagerly)
        model.fit(**data, verbose=0)
        results.append(model.get_weights())
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", ["integers", "one-hot"])
def test_sample_weight_and_class_weight(kind):
    model = build_googlenet(**SMALL, dropout=(0.0, 0.0))
    model.compile("sgd", metrics={}, run_eagerly=True)
    initial = model.get_weights()
    x, y = images(10), labels(10)
    given = label_kinds(y)[kind]
    by_class = {c: 0.5 + c for c in range(CLASSES)}
    weight = np.array([by_class[c] for c in y], "float32")
    outputs = call(model, x)
    losses = {head: numpy_crossentropy(outputs[head], y, weight) for head in outputs}
    total = losses["main"] + 0.3 * (losses["aux1"] + losses["aux2"])
    evaluated = model.evaluate(x, given, sample_weight=weight, batch_size=10, verbose=0, return_dict=True)
    assert evaluated["loss"] == pytest.approx(total, rel=1e-5)
    fitted = {}
    for name, arguments in (("sample", {"sample_weight": weight}), ("class", {"class_weight": by_class})):
        model.set_weights(initial)
        model.compile(keras.optimizers.SGD(0.01), metrics={}, run_eagerly=True)
        fitted[name] = model.fit(x, given, batch_size=10, verbose=0, **arguments).history["loss"][0]
        before = model.get_weights()
        model.train_on_batch(x, given, **arguments)
        assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    assert fitted["sample"] == pytest.approx(fitted["class"], rel=1e-6)
    unweighted = model.evaluate(x, given, batch_size=10, verbose=0, return_dict=True)["loss"]
    assert fitted["sample"] != pytest.approx(unweighted, rel=1e-2)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_every_head_learns_and_takes_its_own_gradient():
    """One step with the loss of one head moves that head and not the others."""
    model = build_googlenet(**SMALL)
    for trained in ("main", "aux1", "aux2"):
        model.compile(keras.optimizers.SGD(0.1), loss={"main": None, trained: Crossentropy()}, run_eagerly=True)
        before = {head: model.get_layer(f"{head}_logits").get_weights()[0] for head in ("main", "aux1", "aux2")}
        model.fit(images(8), labels(8), batch_size=8, verbose=0)
        moved = {h for h, w in before.items() if not np.array_equal(w, model.get_layer(f"{h}_logits").get_weights()[0])}
        assert moved == {trained}


@pytest.mark.every_backend
def test_a_few_steps_fit_a_few_images():
    model = build_googlenet("batchnorm", **SMALL, dropout=(0.0, 0.0))
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    x, y = images(14), np.arange(14) % CLASSES
    history = model.fit(x, y, batch_size=14, epochs=30, verbose=0).history
    assert history["main_accuracy"][-1] > 0.9
    assert history["loss"][-1] < 0.5 * history["loss"][0]


def test_one_head_keeps_the_names_of_its_metrics():
    model = build_googlenet(**SMALL, aux=False)
    model.compile("sgd", run_eagerly=True)
    history = model.fit(images(4), labels(4), validation_data=(images(4), labels(4)), verbose=0).history
    assert {"loss", "main_accuracy", "main_top5_accuracy", "val_main_accuracy"} <= set(history)


@pytest.mark.every_backend
def test_logits_compile_to_the_same_loss():
    x, y = images(10), labels(10)
    losses = []
    for activation in ("softmax", None):
        keras.utils.set_random_seed(0)
        model = build_googlenet(**SMALL, classifier_activation=activation)
        model.compile("sgd", run_eagerly=EAGERLY)
        losses.append(model.evaluate(x, y, verbose=0, return_dict=True)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_explicit_losses_weights_and_metrics():
    x, y = images(10), labels(10)
    model = build_googlenet(**SMALL)
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics="accuracy", run_eagerly=True)
    shared = model.evaluate(x, y, verbose=0, return_dict=True)
    assert {"main_accuracy", "aux1_accuracy", "aux2_accuracy"} <= set(shared)
    model.compile("sgd", loss_weights={"aux1": 0.0, "aux2": 0.5}, metrics={"main": ["accuracy"]}, run_eagerly=True)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["main_loss"] + 0.5 * logs["aux2_loss"], rel=1e-5)
    assert [name for name in logs if name.endswith("accuracy")] == ["main_accuracy"]
    assert logs["main_loss"] == pytest.approx(shared["main_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": ["mse", "mse", "mse"]}, "loss to be a dict by head"),
        ({"loss_weights": [1, 0.3, 0.3]}, "loss_weights to be a dict by head"),
        ({"metrics": ["accuracy"]}, "metrics to be a dict by head"),
        ({"weighted_metrics": ["accuracy"]}, "weighted_metrics to be a dict by head"),
        ({"loss": {"main": "mse", "aux3": "mse"}}, r"among the heads.*\['aux3'\]"),
        ({"loss": {"main": "mse"}, "loss_weights": {"aux1": 1.0}}, "only for heads with a loss"),
    ],
)
def test_lists_and_unknown_heads_are_refused(arguments, message, compiled):
    with pytest.raises(ValueError, match=message):
        compiled[0].compile("sgd", **arguments)


@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 2, 7], "labels from 0 to 6.*from 0 to 7"),
        ([0, -1, 2, 3], "labels from 0 to 6.*from -1 to 3"),
        (np.zeros((4, 3)), r"one-hot \(batch, 7\); Received: shape \(4, 3\)"),
        ({"main": [0, 1, 2, 7], "aux1": [0] * 4, "aux2": [0] * 4}, "labels from 0 to 6"),
    ],
)
def test_bad_labels_are_refused(method, y, message, compiled):
    model, _ = compiled
    y = {head: np.array(v) for head, v in y.items()} if isinstance(y, dict) else np.array(y)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(images(4), y)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_images_without_labels_are_refused(method, compiled, eager):
    tf = pytest.importorskip("tensorflow")
    x = images(4)
    given = [(compiled[0], x), (eager, ops.convert_to_tensor(x))]
    if method in ("fit", "evaluate"):
        given += [(eager, tf.data.Dataset.from_tensor_slices(data).batch(2)) for data in (x, (x,))]
        given.append((eager, ((part,) for part in (x, x))))
    for model, each in given:
        with pytest.raises(
            ValueError, match=r"labels with the images: .* by head \['main', 'aux1', 'aux2'\]; Received"
        ):
            getattr(model, method)(each)


def test_bad_validation_labels_are_refused_before_training():
    model = build_googlenet(**SMALL)
    model.compile("sgd")
    with pytest.raises(ValueError, match="labels from 0 to 6"):
        model.fit(images(4), labels(4), validation_data=(images(2), np.array([0, 9])), verbose=0)
    assert model.optimizer.iterations == 0


@pytest.mark.parametrize("policy", [pytest.param("mixed_float16", marks=pytest.mark.every_backend), "mixed_bfloat16"])
def test_mixed_precision_keeps_the_heads_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    model = build_googlenet(**SMALL, reduction=False)
    model.compile("sgd", run_eagerly=EAGERLY and policy == "mixed_bfloat16")
    assert keras.backend.standardize_dtype(model.get_layer("inception_5b").output.dtype) == policy.removeprefix(
        "mixed_"
    )
    for head, output in call(model, images(2)).items():
        assert output.dtype == "float32"
        assert keras.backend.standardize_dtype(model.get_layer(f"{head}_logits").output.dtype) == "float32"
        np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-6)
    assert np.isfinite(model.fit(images(4), labels(4), verbose=0).history["loss"][0])


# Loss and metric


@pytest.mark.every_backend
def test_label_smoothing_equals_smoothed_labels():
    y, p = labels(6), np.random.default_rng(2).dirichlet(np.ones(CLASSES), 6).astype("float32")
    smooth = 0.9 * np.eye(CLASSES)[y] + 0.1 / CLASSES
    expected = -(smooth * np.log(p)).sum(axis=1).mean()
    for given in (y, np.eye(CLASSES)[y]):
        assert float(Crossentropy(label_smoothing=0.1)(given, p)) == pytest.approx(expected, rel=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(Crossentropy(label_smoothing=0.1)))
    assert float(again(y, p)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.every_backend
def test_top_k_counts_neither_ties_nor_nan():
    metric = TopKAccuracy(2)
    metric.update_state([0, 1, 2, 1], [[0.5, 0.3, 0.2], [0.5, 0.2, 0.3], [1 / 3] * 3, [float("nan")] * 3])
    assert float(metric.result()) == 0.25


@pytest.mark.every_backend
def test_spec_and_model_agree_on_heads():
    for aux in (True, False):
        assert set(build_googlenet(**SMALL, aux=aux).output) == set(Spec(**SMALL, aux=aux).heads)


@pytest.mark.every_backend
@pytest.mark.parametrize("variant", ["paper", "batchnorm"])
def test_features_are_the_maps_of_the_network(variant):
    model = build_googlenet(variant, input_shape=(64, 64, 3), classes=3, width_multiplier=0.1)
    names = ["pool3", "inception_4d", "inception_4d_pre_relu", "inception_4d_5x5", "aux1_conv", "conv2_3x3"]
    names += ["inception_4d_5x5_pre_relu", "conv2_3x3_pre_relu"]
    features = model.features(names)
    assert list(features.output) == names
    x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    maps = call(features, x)
    for name in ("inception_4d", "inception_4d_5x5", "conv2_3x3"):
        before = maps[f"{name}_pre_relu"]
        assert before.min() < 0
        np.testing.assert_array_equal(maps[name], np.maximum(before, 0))
    widths = model.spec.block_widths()["4d"]
    start = widths.conv1 + widths.conv3
    np.testing.assert_array_equal(maps["inception_4d"][..., start : start + widths.conv5], maps["inception_4d_5x5"])
    rest = keras.Model(model.get_layer("inception_4d").output, model.output["main"])
    np.testing.assert_allclose(call(rest, maps["inception_4d"]), call(model, x)["main"], atol=1e-6)


def test_features_refuse_unknown_names():
    model = build_googlenet("batchnorm", input_shape=(32, 32, 3), width_multiplier=0.1, aux=False)
    with pytest.raises(ValueError, match=r"feature='inception_4f'.*Did you mean 'inception_4"):
        model.features(["inception_4f"])
    for names in ([], "pool3"):
        with pytest.raises(ValueError, match="at least one name"):
            model.features(names)
    naive = build_googlenet("plain", input_shape=(32, 32, 3), width_multiplier=0.1, aux=False, reduction=False)
    before = naive.features(["inception_3b_pre_relu"]).output["inception_3b_pre_relu"]
    assert before.shape == naive.get_layer("inception_3b").output.shape

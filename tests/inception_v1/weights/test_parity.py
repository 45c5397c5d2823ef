"""Our network beside the original executor of each family: same file, same pixels, same logits."""

import dataclasses
import functools
import importlib
import tempfile
from pathlib import Path

import numpy as np
import pytest

from inception_v1 import build_googlenet, import_weights
from inception_v1.spec import LRN, VARIANTS
from inception_v1.weights.loading import read_weights
from tests.helpers.networks import call
from tests.oracles import SIZES, images

TOLERANCE = 1e-5  # of logits with a deviation of about 1
VISIBLE = 1e-2

# id: module, arguments of its `write`, arguments of its `run`
CASES = {
    "caffe": ("caffe", {}, {}),
    "caffe-old": ("caffe", {"old": True}, {}),
    "torchvision": ("torchvision", {}, {}),
    "torchvision-legacy": ("torchvision", {"legacy": True}, {}),
    "torchvision-transform_input": ("torchvision", {}, {"transform_input": True}),
    "slim": ("slim", {}, {}),
    "onnx-floor": ("onnx_zoo", {}, {}),
    "onnx-ceil": ("onnx_zoo", {"ceil": True}, {}),
    "inception5h": ("inception5h", {}, {}),
    "inception5h-lrn": ("inception5h", {"lrn": "OTHER_LRN"}, {}),
}
# The zoo's own padding rounds up at its own size alone; other layouts of one file, other constants of the response
# normalization and another scale of the pixels say the same at every size.
ONE_SIZE = {"onnx-ceil", "caffe-old", "torchvision-legacy", "torchvision-transform_input", "inception5h-lrn"}
EVERY_SIZE = [(case, size) for case in CASES for size in SIZES[: 1 if case in ONE_SIZE else 3]]
ON_EVERY_BACKEND = ("caffe", "torchvision", "slim", "onnx-floor", "inception5h")  # each family once
EXECUTORS = {"caffe": "cv2", "slim": "tf_slim", "onnx_zoo": "onnxruntime"}


def oracle(name):
    if name in EXECUTORS:
        pytest.importorskip(EXECUTORS[name])
    return importlib.import_module(f"tests.oracles.{name}")


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@functools.cache
def written(folder, name, arguments):
    module = oracle(name)
    named = {key: getattr(module, value) if isinstance(value, str) else value for key, value in arguments}
    return module.write(folder, **named)


@functools.cache
def theirs(folder, case, size):
    """What the original executor says: (pixels, logits by head)."""
    name, write, run = CASES[case]
    module = oracle(name)
    x = images(*size, module.SCALE)
    logits = module.run(written(folder, name, tuple(write.items())), x, **run)
    return (module.transformed(x) if run.get("transform_input") else x), logits


@functools.cache
def variant_of(path):
    return read_weights(path).variant


def ours(path, size, x, **arguments):
    """Logits by head. Where eager calls are faster, `test_wrong_orders_show` traces each family."""
    model = build_googlenet(input_shape=(*size, 3), weights=path, classifier_activation=None, **arguments)
    return call(model, x)


def difference(mine, expected):
    """Largest difference of the logits that the executor gave."""
    return float(np.abs(mine[:, : expected.shape[1]] - expected).max())


def _case(case, size):
    once = [pytest.mark.every_backend] if case in ON_EVERY_BACKEND and size == SIZES[0] else []
    return pytest.param(case, size, id=f"{case}-{size[0]}x{size[1]}", marks=once)


@pytest.mark.parametrize(("case", "size"), [_case(*each) for each in EVERY_SIZE])
def test_logits_are_those_of_the_original(folder, case, size):
    x, expected = theirs(folder, case, size)
    name, write, _ = CASES[case]
    mine = ours(written(folder, name, tuple(write.items())), size, x, aux=len(expected) > 1)
    assert mine.keys() == expected.keys()
    for head, logits in expected.items():
        assert 0.3 < logits.std() < 3, "a test on logits that hardly differ proves nothing"
        assert difference(mine[head], logits) < TOLERANCE, head


def test_onnx_maps_agree_block_by_block(folder):
    module = oracle("onnx_zoo")
    x = images(224, 224, module.SCALE)
    *expected, _ = module.run_blocks(written(folder, "onnx_zoo", ()), x)
    model = build_googlenet(weights=written(folder, "onnx_zoo", ()), aux=False)
    blocks = [f"inception_{block}" for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    features = model.features(blocks)(x)
    for block, their_map in zip(blocks, expected, strict=True):
        assert np.abs(np.asarray(features[block]) - their_map).max() < TOLERANCE * their_map.max(), block


def test_both_versions_of_a_checkpoint_hold_the_same(folder):
    first, second = (read_weights(written(folder, "slim", (("version", version),))).arrays for version in (1, 2))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


# What is easily got wrong, and the size at which it shows: at 224 "same" pools are "ceil", at 231 "same" conv1 is 3, 3.
WRONG = {
    "conv1_padding": (SIZES[0], {"conv1_padding": "explicit"}, {"conv1_padding": "same"}),
    "pool_rounding": (SIZES[1], {"pool_rounding": "same"}, {"pool_rounding": "ceil"}),
    "pool4_size": (SIZES[1], {"pool4_size": 2}, {"pool4_size": 3}),
}


def wrong_variants(variant):
    """(what, size, the row with one thing wrong)."""
    row = VARIANTS[variant]
    for what, (size, *choices) in WRONG.items():
        changed = next(choice for choice in choices if getattr(row, what) != choice[what])
        yield what, size, dataclasses.replace(row, **changed)
    if isinstance(row.norm, LRN):  # dividing alpha by the window once more, or not at all
        yield "lrn", SIZES[1], dataclasses.replace(row, norm=row.norm._replace(alpha=row.norm.alpha * row.norm.size))
    else:  # PyTorch's default
        yield "epsilon", SIZES[1], dataclasses.replace(row, norm=row.norm._replace(epsilon=1e-5))


NEGATIVES = [
    pytest.param(case, what, size, row, id=f"{case}-{what}")
    for case, variant in {
        "caffe": "paper",
        "torchvision": "torchvision",
        "slim": "slim",
        "onnx-floor": "onnx_zoo",
        "inception5h": "inception5h",
    }.items()
    for what, size, row in wrong_variants(variant)
]


@pytest.mark.parametrize(("case", "what", "size", "row"), NEGATIVES)
def test_one_wrong_choice_shows(folder, monkeypatch, case, what, size, row):
    x, expected = theirs(folder, case, size)
    name, write, _ = CASES[case]
    path = written(folder, name, tuple(write.items()))
    monkeypatch.setitem(VARIANTS, variant_of(path), row)
    # The files of inception5h say their own constants; here the wrong ones are to count.
    arguments = {"lrn": row.norm} if what == "lrn" and name == "inception5h" else {}
    if arguments:
        monkeypatch.setattr("inception_v1.weights.assign._check_family", lambda spec, weights: None)
    assert difference(ours(path, size, x, aux=False, **arguments)["main"], expected["main"]) > VISIBLE


@pytest.mark.parametrize("case", ON_EVERY_BACKEND)
def test_wrong_orders_show(folder, case):
    x, expected = theirs(folder, case, SIZES[0])
    name, write, _ = CASES[case]
    model = build_googlenet(weights=written(folder, name, tuple(write.items())), aux=False, classifier_activation=None)
    right = difference(model.predict(x, verbose=0)["main"], expected["main"])
    flipped = difference(model.predict(x[..., ::-1], verbose=0)["main"], expected["main"])
    kernel = model.get_layer("inception_3a_3x3").kernel
    kernel.assign(np.asarray(kernel).transpose(1, 0, 2, 3))  # width before height
    transposed = difference(model.predict(x, verbose=0)["main"], expected["main"])
    assert right < TOLERANCE < VISIBLE < min(flipped, transposed)


def test_imported_files_say_what_they_are(folder):
    published = {"caffe": ("paper", True), "torchvision": ("torchvision", True), "slim": ("slim", False)}
    published |= {
        "onnx-floor": ("onnx_zoo", False),
        "onnx-ceil": ("paper", False),
        "inception5h-lrn": ("inception5h", True),
    }
    for case, (variant, aux) in published.items():
        name, write, _ = CASES[case]
        model = import_weights(written(folder, name, tuple(write.items())))
        spec = model.spec
        assert (spec.variant, spec.has_aux, spec.pixels) == (variant, aux, VARIANTS[variant].pixels), case
        assert len(spec.class_names) == spec.classes == VARIANTS[variant].classes
        first = {"slim": ("background", "tench"), "inception5h": ("dummy", "kit fox")}.get(
            variant, ("tench", "goldfish")
        )
        assert spec.class_names[:2] == first
    assert spec.lrn == pytest.approx(LRN(7, 7e-4, 0.5, 2.0), rel=1e-6)
    again = build_googlenet(weights=written(folder, "inception5h", ()), lrn=LRN(5, 1e-4, 0.75, 1.0))
    assert again.spec.lrn == LRN()
    with pytest.raises(ValueError, match=r"lrn=\(7, 0\.00069.*Received: lrn=\(5"):
        build_googlenet(weights=written(folder, "inception5h", (("lrn", "OTHER_LRN"),)), lrn=LRN())

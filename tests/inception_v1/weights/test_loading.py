import hashlib
import logging
import re

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from inception_v1 import build_googlenet, export_weights, import_weights, load_weights
from inception_v1.spec import LRN
from inception_v1.weights import name_mapping, pretrained
from inception_v1.weights.assign import assign_weights
from inception_v1.weights.formats import Weights
from inception_v1.weights.loading import read_weights
from tests.fuzz_weights import tensor_pickle, torch_zip
from tests.oracles import torchvision as torch_oracle

SMALL = {"input_shape": (32, 32, 3), "classes": 3, "width_multiplier": 0.1}


def small(variant="torchvision", **changes):
    return build_googlenet(variant, **{**SMALL, **changes})


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


@pytest.fixture
def exported(tmp_path):
    """A model of random weights, and its file."""
    model = small()
    for variable in model.weights:  # running statistics too
        variable.assign(np.random.default_rng(len(variable.path)).uniform(0.5, 1.5, variable.shape))
    export_weights(model, tmp_path / "net.safetensors", "torchvision")
    return model, tmp_path / "net.safetensors"


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_saved_weights_load(tmp_path, suffix):
    model = small("paper")
    path = tmp_path / f"model{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(path)
    renamed = path.rename(tmp_path / "renamed")
    for other in (small(None, weights=renamed), small("paper")):
        load_weights(other, renamed, source="keras")
        assert equal(model, other)


def test_the_variant_follows_from_the_file(tmp_path, exported):
    model, path = exported
    assert equal(model, small(None, weights=path))
    model.save(tmp_path / "net.keras")
    assert small(None, weights=tmp_path / "net.keras").spec.variant == "torchvision"


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_bad_files_are_refused_and_leave_the_model_alone(tmp_path):
    model = small("paper")
    other = tmp_path / "other.weights.h5"
    small("paper", classes=4).save_weights(other)
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(other.read_bytes()[:1000])
    (tmp_path / "model.bin").write_bytes(b"x")
    before = model.get_weights()
    for path, message in (
        (tmp_path / "absent.keras", "does not exist"),
        (tmp_path / "model.bin", "damaged, or nothing that Caffe"),
        (other, "network like 'googlenet'.*other.weights.h5"),
        (broken, "network like 'googlenet'.*broken.weights.h5"),
    ):
        with pytest.raises(ValueError, match=message):
            load_weights(model, path)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("variant", "family", "file"), [("torchvision", "torchvision", "a.safetensors"), ("paper", "caffe", "a.caffemodel")]
)
def test_exported_weights_come_back_exactly(tmp_path, variant, family, file):
    model, other = small(variant), small(variant)
    assert not equal(model, other)
    export_weights(model, tmp_path / file, family)
    load_weights(other, tmp_path / file, source=family)
    assert equal(model, other)
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_exported_names_and_shapes_are_pytorchs(exported):
    _, path = exported
    arrays = load_file(path)
    fixture = np.load(torch_oracle.FIXTURE)
    assert arrays.keys() == set(fixture["names"].tolist())  # what PyTorch's own state dict has, counters included
    model = build_googlenet("torchvision")
    export_weights(model, path, "torchvision")
    theirs = {str(n): tuple(d for d in s if d >= 0) for n, s in zip(fixture["names"], fixture["shapes"], strict=True)}
    assert {name: array.shape for name, array in load_file(path).items()} == theirs


def test_export_refuses_what_the_family_has_not(tmp_path):
    for model, file, family, message in (
        (small("slim"), "a.safetensors", "torchvision", "variant 'torchvision'.*variant='slim'"),
        (small("paper", stem="small"), "a.caffemodel", "caffe", "stem='small'"),
        (small("paper"), "a.pth", "caffe", r"ending in \.caffemodel"),
        (small("paper"), "a.onnx", "onnx", "family.*'torchvision', 'caffe'"),
    ):
        with pytest.raises(ValueError, match=message):
            export_weights(model, tmp_path / file, family)
    assert not list(tmp_path.iterdir())


def test_everything_wrong_is_in_one_error(tmp_path, exported):
    model, path = exported
    arrays = load_file(path)
    del arrays["conv1.bn.bias"], arrays["inception5b.branch3.1.conv.weight"]
    arrays["conv9.conv.weight"] = np.zeros(3, "float32")
    arrays["fc.weight"] = arrays["fc.weight"].T.copy()
    arrays["inception3a.branch1.conv.weight"] = arrays["inception3a.branch1.conv.weight"][:-1]
    save_file(arrays, path)
    before = model.get_weights()
    with pytest.raises(ValueError, match="Expected weights that fit") as error:
        load_weights(model, path)
    for part in (
        "2 missing: conv1.bn.bias, inception5b.branch3.1.conv.weight",
        "1 unused: conv9.conv.weight",
        "2 of another shape: ",
        "inception3a.branch1.conv.weight of shape (7, 16, 1, 1) for (8, 16, 1, 1)",
        "fc.weight of shape (",
    ):
        assert part in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_other_classes_need_skip(exported):
    model, path = exported
    other = small(classes=5)
    with pytest.raises(ValueError, match=r"6 of another shape.*skip=\('main', 'aux1', 'aux2'\)"):
        load_weights(other, path)
    fresh = {v.path: np.array(v) for v in other.weights}
    load_weights(other, path, skip=("main", "aux1_logits", "aux2"))
    loaded = {v.path: np.array(v) for v in model.weights}
    for variable in other.weights:
        source = fresh if "_logits" in variable.path else loaded
        np.testing.assert_array_equal(variable, source[variable.path])
    with pytest.raises(ValueError, match=r"skip.*'main_logit'.*'main_logits'"):
        load_weights(other, path, skip=["main_logit"])
    with pytest.raises(ValueError, match="collection of names"):
        load_weights(other, path, skip="main")


def test_auxiliary_heads_may_be_absent_on_either_side(tmp_path, exported, caplog):
    model, path = exported
    bare = small(aux=False)
    load_weights(bare, path)
    body = small(include_top=False, pooling="avg")
    load_weights(body, path)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(bare.predict(x, verbose=0)["main"], model.predict(x, verbose=0)["main"], atol=1e-6)
    assert body.count_params() < bare.count_params()

    export_weights(bare, path, "torchvision")
    other = small()
    fresh = {v.path: np.array(v) for v in other.weights}
    with caplog.at_level(logging.WARNING):
        load_weights(other, path)
    assert "no head 'aux1'" in caplog.text
    assert "no head 'aux2'" in caplog.text
    for variable in other.weights:
        same = np.array_equal(variable, fresh[variable.path])
        assert same == (name_mapping.head_of(variable.path) in ("aux1", "aux2")), variable.path


@pytest.mark.parametrize("classes", [1000, 1001])
def test_the_background_class_is_kept_or_dropped(tmp_path, classes):
    whole = small("slim", classes=1001)
    arrays = {
        entry.name: entry.transform.theirs(np.array(variable))
        for variable in whole.weights
        if (entry := name_mapping.slim(whole.spec).get(variable.path))
    }
    model = small("slim", classes=classes, aux=False)
    assign_weights(model, Weights(tmp_path, "slim", "slim", arrays | {"global_step": np.zeros((), "float32")}))
    kernel = np.array(whole.get_layer("main_logits").kernel)
    np.testing.assert_array_equal(model.get_layer("main_logits").kernel, kernel[:, 1001 - classes :])


def test_families_do_not_mix(exported, tmp_path):
    _, path = exported
    with pytest.raises(ValueError, match=r"variant 'torchvision'.*variant='batchnorm'"):
        load_weights(small("batchnorm"), path)
    with pytest.raises(ValueError, match=r"weights of caffe.*a file of torchvision"):
        load_weights(small(), path, source="caffe")
    with pytest.raises(ValueError, match="source to be one of"):
        load_weights(small(), path, source="pytorch")
    other = small("paper", lrn=LRN(alpha=1.0))
    other.save(tmp_path / "net.keras")
    with pytest.raises(ValueError, match=r"lrn=\(5, 1.0.*Received: lrn=\(5, 0.0001"):
        load_weights(small("paper"), tmp_path / "net.keras")


def test_wrapped_state_dicts_load(tmp_path):
    path = tmp_path / "file"
    inner = tensor_pickle(name="module.w")[2:-1]
    path.write_bytes(torch_zip(b"\x80\x02}X\x0a\x00\x00\x00state_dict" + inner + b"s.", {"0": bytes(16)}))
    assert read_weights(path).arrays.keys() == {"w"}


def test_an_imported_model_keeps_what_it_says(tmp_path):
    export_weights(
        build_googlenet("torchvision", classes=3, width_multiplier=1.0), tmp_path / "a.safetensors", "torchvision"
    )
    model = import_weights(tmp_path / "a.safetensors", pixels="torch", class_names=("cat", "dog", "owl"))
    model.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    assert (again.spec.pixels, again.spec.class_names, again.spec.variant) == (
        "torch",
        ("cat", "dog", "owl"),
        "torchvision",
    )
    assert equal(model, again)
    with pytest.raises(ValueError, match="Expected 3 class names"):
        import_weights(tmp_path / "a.safetensors", class_names=("cat",))
    with pytest.raises(ValueError, match=r"pixels.*'torsh'.*'torch'"):
        import_weights(tmp_path / "a.safetensors", pixels="torsh")
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="name the network"):
        import_weights(tmp_path / "a.weights.h5")


def test_published_weights_are_converted_once_and_then_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    calls = []

    def no_network(*arguments, **keywords):
        calls.append(arguments)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(keras.utils, "get_file", no_network)
    place = tmp_path / "models" / "googlenet" / "googlenet-1378be20.pth"
    with pytest.raises(ValueError, match=r"https://download\.pytorch\.org/models/googlenet-1378be20\.pth") as error:
        build_googlenet(weights="imagenet")
    assert str(place) in str(error.value)
    assert "unreachable" in str(error.value)

    place.parent.mkdir(parents=True)
    torch_oracle.write(tmp_path).rename(place)
    with pytest.raises(ValueError, match="SHA-256 1378be20; Received"):
        build_googlenet(weights="torchvision")
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    monkeypatch.setitem(
        pretrained.DOWNLOADS, "torchvision", pretrained.DOWNLOADS["torchvision"]._replace(sha256=digest[:8])
    )
    model = build_googlenet(weights="torchvision")
    place.unlink()
    assert equal(model, build_googlenet(weights="imagenet"))
    assert len(calls) == 1
    assert re.search("tench", "".join(import_weights("imagenet").spec.class_names))

"""Exports over real connections, in TF Serving's own protocol.

`tensorflow_model_server` serves them where it is on the PATH, else `tests.helpers.serving_stand_in` does.
"""

import base64
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

import googlenet
from tests.helpers.images import BOMBS, GOOD, READABLE
from tests.helpers.processes import free_ports
from tests.helpers.serving_stand_in import serving
from training.evaluation.classify import classify
from training.serving_client import newest_version


@pytest.fixture(scope="module")
def addresses(exported):
    with serving(exported[1].parent, "digits") as found:
        yield found


@pytest.fixture
def stub(addresses):
    with grpc.insecure_channel(addresses.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def files(tmp_path):
    """Image files of several kinds."""
    paths = []
    for kind in ("png", "jpeg", "gif", "webp"):
        paths.append(tmp_path / f"image.{kind}")
        paths[-1].write_bytes(READABLE[kind])
    return [str(path) for path in paths]


def request_of(values, signature="serving_default", key="image_bytes", name="digits"):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
    return request


def post(address, path, body):
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_grpc_gives_the_keras_models_classes(exported, stub, files):
    expected = classify(exported[0], files)
    response = stub.Predict(request_of([Path(file).read_bytes() for file in files]), timeout=60)
    outputs = {key: tf.make_ndarray(value) for key, value in response.outputs.items()}
    assert response.model_spec.version.value == 1
    assert outputs["status"].tolist() == [b"ok"] * 4
    for place, best in enumerate(expected.values()):
        assert [label.decode() for label in outputs["labels"][place]] == [name for name, _ in best]
        np.testing.assert_allclose(outputs["scores"][place], [score for _, score in best], atol=1e-5)


def test_grpc_takes_pixels_of_both_kinds(stub):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), "uint8")
    floats = stub.Predict(request_of(pixels.astype("float32"), "predict_images", "images"), timeout=60)
    bytes_ = stub.Predict(request_of(pixels, "predict_images_uint8", "images"), timeout=60)
    found = [tf.make_ndarray(response.outputs["probabilities"]) for response in (floats, bytes_)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert found[0].shape == (3, 10)


def test_requests_that_a_server_joins_to_batches_get_their_own_classes(exported, files):
    expected = classify(exported[0], files)
    with (
        serving(exported[1].parent, "digits", batching=8) as joined,
        grpc.insecure_channel(joined.grpc) as channel,
        ThreadPoolExecutor(8) as clients,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        requests = [request_of([Path(file).read_bytes()]) for file in 6 * files]
        responses = list(clients.map(lambda request: predict(request, timeout=60), requests))
    for file, response in zip(6 * files, responses, strict=True):
        scores = tf.make_ndarray(response.outputs["scores"])[0]
        np.testing.assert_allclose(scores, [score for _, score in expected[file]], atol=1e-5)


def test_a_bad_image_does_not_lose_the_others_of_a_request(stub):
    response = stub.Predict(request_of([GOOD, *BOMBS.values(), GOOD]), timeout=60)
    status = [s.decode() for s in tf.make_ndarray(response.outputs["status"])]
    assert status == ["ok", *["unreadable"] * 5, "too large", "ok"]


def test_a_server_refuses_bad_requests_with_their_status(stub):
    for request, code in (
        (request_of([GOOD], name="letters"), grpc.StatusCode.NOT_FOUND),
        (request_of([GOOD], "classify"), grpc.StatusCode.INVALID_ARGUMENT),
        (request_of([GOOD], key="image"), grpc.StatusCode.INVALID_ARGUMENT),
        (request_of(np.zeros((1, 31, 32, 1), "float32"), "predict_images", "images"), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as error:
            stub.Predict(request, timeout=60)
        assert error.value.code() == code


def test_status_and_metadata(addresses, stub):
    with grpc.insecure_channel(addresses.grpc) as channel:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "digits"
        state = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=60)
    assert [(one.version, one.state) for one in state.model_version_status] == [
        (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    ]
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "digits"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(request, timeout=60).metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "predict_images", "predict_images_uint8"} <= set(signatures.signature_def)
    tensor = signatures.signature_def["serving_default"].inputs["image_bytes"]
    assert tensor.dtype == tf.string.as_datatype_enum
    assert [dim.size for dim in tensor.tensor_shape.dim] == [-1]


@pytest.mark.parametrize("form", ["rows", "named rows", "columns"])
def test_rest_takes_images_in_base64(exported, addresses, files, form):
    expected = classify(exported[0], files)
    images = [{"b64": base64.b64encode(Path(file).read_bytes()).decode()} for file in files]
    body = {
        "rows": {"instances": images},
        "named rows": {"instances": [{"image_bytes": image} for image in images]},
        "columns": {"inputs": {"image_bytes": images}},
    }[form]
    response = post(addresses.rest, "/v1/models/digits:predict", body)
    if form == "columns":
        rows = [dict(zip(response["outputs"], values)) for values in zip(*response["outputs"].values())]
    else:
        rows = response["predictions"]
    for row, best in zip(rows, expected.values(), strict=True):
        assert row["labels"] == [name for name, _ in best]
        assert row["status"] == "ok"
        assert row["scores"] == pytest.approx([score for _, score in best], abs=1e-5)


def test_rest_reports_the_status_of_each_image(addresses):
    bad = {"b64": base64.b64encode(b"\xff\xd8\xff").decode()}
    good = {"b64": base64.b64encode(GOOD).decode()}
    rows = post(addresses.rest, "/v1/models/digits:predict", {"instances": [bad, good]})["predictions"]
    assert [row["status"] for row in rows] == ["unreadable", "ok"]
    assert rows[0]["classes"] == [-1] * 5
    assert sum(rows[1]["probabilities"]) == pytest.approx(1)
    with pytest.raises(urllib.error.HTTPError) as error:
        post(addresses.rest, "/v1/models/digits:predict", {"instances": []})
    assert error.value.code == 400


def test_the_command_line_predicts_by_a_server_as_by_the_run(exported, addresses, files, capsys):
    flags = ["--top", "3", "--json"]
    assert googlenet.main(["predict", str(exported[0]), *files, *flags]) == 0
    expected = json.loads(capsys.readouterr().out)
    server = ["--server", f"grpc://{addresses.grpc}", "--name", "digits"]
    for arguments in ([*server, *files], [str(exported[1].parent), *files], [str(exported[1]), *files]):
        assert googlenet.main(["predict", *arguments, *flags]) == 0
        found = json.loads(capsys.readouterr().out)
        assert list(found) == files
        for file, best in expected.items():
            assert [name for name, _ in found[file]] == [name for name, _ in best]
            assert [score for _, score in found[file]] == pytest.approx([score for _, score in best], abs=1e-5)


def test_what_the_client_cannot_do_is_an_error_of_one_sentence(exported, addresses, files, tmp_path, capsys):
    text = tmp_path / "page.html"
    text.write_text("<html>")
    server = f"grpc://{addresses.grpc}"
    for arguments, message in (
        (
            ["--server", addresses.grpc, files[0]],
            f"Expected a server at grpc://HOST:PORT; Received: '{addresses.grpc}'",
        ),
        (["--server", f"grpc://localhost:{free_ports(1)[0]}", files[0]], "Received: UNAVAILABLE"),
        (["--server", server, files[0]], "Expected a response of model 'googlenet'"),
        (["--server", server, "--name", "digits", str(text)], f"Received: '{text}', which is unreadable"),
        (["--server", server, "--name", "digits", str(tmp_path / "absent.png")], "which is no file"),
        ([str(exported[1]), str(text)], f"Received: '{text}', which is unreadable"),
        ([str(exported[1])], "at least one image"),
    ):
        assert googlenet.main(["predict", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("googlenet: error: Expected")
        assert error.count("\n") == 1


def test_files_that_the_client_cannot_read_do_not_lose_the_others(
    exported, addresses, files, tmp_path, capsys, caplog, monkeypatch
):
    monkeypatch.setattr("training.serving_client.BATCH", 2)
    absent, text = tmp_path / "absent.png", tmp_path / "page.html"
    text.write_text("<html>")
    given = [str(absent), *files, str(text)]
    for model in (["--server", f"grpc://{addresses.grpc}", "--name", "digits"], [str(exported[1])]):
        assert googlenet.main(["predict", *model, *given, "--json"]) == 1
        assert list(json.loads(capsys.readouterr().out)) == files
        lines = [f"left out: '{absent}', which is no file", f"left out: '{text}', which is unreadable"]
        assert caplog.messages == lines
        caplog.clear()


def test_the_newest_version_predicts(tmp_path, exported):
    assert newest_version(exported[1].parent) == newest_version(exported[1]) == exported[1]
    assert newest_version(exported[0]) is None
    for version in (9, 10):
        (tmp_path / str(version)).mkdir()
        (tmp_path / str(version) / "saved_model.pb").touch()
    assert newest_version(tmp_path).name == "10"

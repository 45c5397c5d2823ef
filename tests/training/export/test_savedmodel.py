import resource
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from tests.helpers.images import BOMBS, GOOD, READABLE, encode
from training.data import sources
from training.data.decoding import decode
from training.export import savedmodel
from training.export.export_model import ExportModel
from training.run_folder import RunFolder
from training.serving_protocol import OK


@pytest.fixture(scope="module")
def signatures(exported, tmp_path_factory):
    """The signatures of an export, loaded from another place than it was written to."""
    moved = tmp_path_factory.mktemp("moved") / "9"
    shutil.copytree(exported[1], moved)
    loaded = tf.saved_model.load(str(moved))
    yield loaded.signatures
    del loaded


def call(signature, **inputs):
    """{output: array} of a signature."""
    return {name: value.numpy() for name, value in signature(**inputs).items()}


def test_tensorflow_has_nothing_to_warn_of_when_it_saves_the_labels(exported):
    assert None not in tf.compat.v1.get_default_graph().get_collection("table_initializer")


def test_images_are_prepared_as_in_evaluation_one_by_one(exported, signatures):
    """Each alone and all together, of every kind, against the Keras model on what evaluation decodes."""
    run = RunFolder(exported[0])
    network = ExportModel(run.model(), run.classes())
    test = sources.load(run.recipe()).test
    images = [*READABLE.values(), *(image for image, _ in test.encoded_images().take(20).as_numpy_iterator())]
    pixels = np.stack([decode(image, 32, 1).numpy() for image in images])
    decoded, status = savedmodel.decode_batch(tf.constant(images), 32, 1)
    np.testing.assert_array_equal(decoded, pixels)
    expected = network.expected(pixels)["probabilities"]
    together = call(signatures["serving_default"], image_bytes=tf.constant(images))
    assert set(together["status"].tolist()) == {b"ok"} == set(status.numpy().tolist())
    np.testing.assert_allclose(together["probabilities"], expected, atol=1e-5)
    for image, p in zip(images, expected, strict=True):
        alone = call(signatures["serving_default"], image_bytes=tf.constant([image]))
        np.testing.assert_allclose(alone["probabilities"], p[None], atol=1e-5)
    for name, dtype in (("predict_images", tf.float32), ("predict_images_uint8", tf.uint8)):
        same = call(signatures[name], images=tf.cast(pixels, dtype))
        np.testing.assert_allclose(same["probabilities"], together["probabilities"], atol=1e-6)


def test_classes_labels_and_scores_are_the_best_first(signatures):
    outputs = call(
        signatures["predict_images_uint8"], images=np.random.default_rng(0).integers(0, 256, (6, 32, 32, 1), "uint8")
    )
    order = np.argsort(-outputs["probabilities"], axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(outputs["classes"], order)
    np.testing.assert_array_equal(outputs["scores"], np.take_along_axis(outputs["probabilities"], order, 1))
    digits = [[str(i).encode() for i in row] for row in order]  # whose names are their numbers
    assert outputs["labels"].tolist() == digits
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-5)


def test_a_bad_image_does_not_lose_the_others(signatures):
    alone = call(signatures["serving_default"], image_bytes=tf.constant([GOOD]))
    outputs = call(signatures["serving_default"], image_bytes=tf.constant([GOOD, *BOMBS.values(), GOOD]))
    status = [s.decode() for s in outputs["status"]]
    assert status == ["ok", *["unreadable"] * 5, "too large", "ok"]
    for place in (0, -1):
        np.testing.assert_allclose(outputs["probabilities"][place], alone["probabilities"][0], atol=1e-6)
        assert outputs["labels"][place].tolist() == alone["labels"][0].tolist()
    bad = slice(1, -1)
    assert not outputs["probabilities"][bad].any()
    assert not outputs["scores"][bad].any()
    assert set(outputs["classes"][bad].ravel()) == {-1}
    assert set(outputs["labels"][bad].ravel().tolist()) == {b""}
    only_bad = call(signatures["serving_default"], image_bytes=tf.constant([b"", b"x"]))
    assert only_bad["status"].tolist() == [b"unreadable"] * 2


def test_pixels_that_are_not_finite_do_not_lose_the_others(signatures):
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 1)).astype("float32")
    alone = call(signatures["predict_images"], images=tf.constant(images[2:]))
    images[0, 3, 3], images[1, 0, 0] = np.nan, np.inf
    outputs = call(signatures["predict_images"], images=tf.constant(images))
    assert outputs["status"].tolist() == [b"not finite", b"not finite", b"ok"]
    np.testing.assert_allclose(outputs["probabilities"][2], alone["probabilities"][0], atol=1e-6)
    assert not outputs["probabilities"][:2].any()


def test_no_images_at_all_is_a_clear_error(signatures):
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least one image"):
        signatures["serving_default"](image_bytes=tf.constant([], tf.string))


def test_long_and_huge_and_animated_images_take_bounded_time_and_memory(signatures):
    frames = [Image.new("L", (600, 600), i) for i in range(200)]
    images = {
        "1 x 60,000": encode(Image.new("RGB", (1, 60_000), (9, 99, 200)), "PNG"),
        "60,000 x 1": encode(Image.new("RGB", (60_000, 1), (9, 99, 200)), "PNG"),
        "animated gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "30,000 x 30,000": BOMBS["30,000 x 30,000"],
    }
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    outputs = call(signatures["serving_default"], image_bytes=tf.constant(list(images.values())))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert [s.decode() for s in outputs["status"]] == ["ok", "ok", "ok", "too large"]
    assert grown < 300_000, "kB"  # the frames alone would be 216 MB, the large image 2.7 GB
    assert time.monotonic() - began < 20


def test_4000_mutated_images_neither_crash_nor_block_it(signatures):
    """Bytes of images of every kind are changed, cut out, doubled or cut off; a good image among them is unaffected."""
    random = np.random.default_rng(0)
    alone = call(signatures["serving_default"], image_bytes=tf.constant([GOOD]))["probabilities"][0]
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), "uint8"))
    whole = [encode(small, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP")]
    whole += [
        encode(small, "GIF", save_all=True, append_images=[small.rotate(180)]),
        encode(small, "WEBP", lossless=True),
    ]
    statuses = {}
    for _ in range(40):
        images = [mutate(whole[random.integers(len(whole))], random) for _ in range(100)]
        place = int(random.integers(101))
        outputs = call(signatures["serving_default"], image_bytes=tf.constant([*images[:place], GOOD, *images[place:]]))
        np.testing.assert_allclose(outputs["probabilities"][place], alone, atol=1e-6)
        for status, total in zip(outputs["status"], outputs["probabilities"].sum(axis=1), strict=True):
            statuses[status] = statuses.get(status, 0) + 1
            assert total == pytest.approx(1.0 if status == OK.encode() else 0.0, abs=1e-5)
    assert sum(statuses.values()) == 4040
    assert min(statuses[b"ok"], statuses[b"unreadable"]) > 200, statuses


def mutate(image, random):
    data = bytearray(image)
    match random.integers(4):
        case 0:
            return bytes(data[: random.integers(len(data))])
        case 1:
            start, end = sorted(random.integers(0, len(data), 2))
            return bytes(data[:start] + data[end:])
        case 2:
            start, end = sorted(random.integers(0, len(data), 2))
            return bytes(data[:end] + data[start:])
    for place in random.integers(0, min(len(data), random.choice([48, len(data)])), random.integers(1, 6)):
        data[place] = random.integers(256)
    return bytes(data)


def test_warm_up_requests_get_predictions(exported, signatures):
    records = tf.data.TFRecordDataset(str(exported[1] / "assets.extra" / "tf_serving_warmup_requests"))
    requested = set()
    for record in records.as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == "digits"
        signature = signatures[request.model_spec.signature_name]
        outputs = call(signature, **{name: tf.make_ndarray(value) for name, value in request.inputs.items()})
        assert set(outputs["status"].tolist()) == {b"ok"}
        requested.add((request.model_spec.signature_name, len(outputs["status"])))
    assert requested == {
        ("serving_default", 1),
        ("serving_default", 8),
        ("predict_images", 1),
        ("predict_images_uint8", 1),
    }


def test_models_config_and_batching_are_for_tf_serving(exported):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    _, folder, _ = exported
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((folder.parent / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")
    assert "max_batch_size { value: 8 }" in (folder / savedmodel.BATCHING).read_text()

import resource
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from tests.training.data.test_decoding import READABLE, encoded
from training.data import sources
from training.data.decoding import decode
from training.data.pipeline import encoded_pictures
from training.export import savedmodel as saved_model
from training.export.export_model import Inference
from training.run_folder import RunFolder
from training.serving_client import OK

GOOD = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), "uint8")), "PNG")


@pytest.fixture(scope="module")
def signatures(exported, tmp_path_factory):
    """Loaded from another place than it was written to."""
    moved = tmp_path_factory.mktemp("moved") / "9"
    shutil.copytree(exported[1], moved)
    loaded = tf.saved_model.load(str(moved))
    yield loaded.signatures
    del loaded


def answer(signature, **inputs):
    return {name: value.numpy() for name, value in signature(**inputs).items()}


def test_pictures_are_seen_as_in_evaluation_image_by_image(exported, signatures):
    """Each alone and all together, of every kind, against the Keras model on what evaluation decodes."""
    run = RunFolder(exported[0])
    network = Inference(run.model(), run.classes())
    builder, splits = sources.load(run.recipe())
    digits = [picture for picture, _ in encoded_pictures(builder, splits.test).take(20).as_numpy_iterator()]
    pictures = [*READABLE.values(), *digits]
    pixels = np.stack([decode(picture, 32, 1).numpy() for picture in pictures])
    images, status = saved_model.decoded(tf.constant(pictures), 32, 1)
    np.testing.assert_array_equal(images, pixels)
    expected = network.expected(pixels)["probabilities"]
    together = answer(signatures["serving_default"], image_bytes=tf.constant(pictures))
    assert set(together["status"].tolist()) == {b"ok"} == set(status.numpy().tolist())
    np.testing.assert_allclose(together["probabilities"], expected, atol=1e-5)
    for picture, p in zip(pictures, expected, strict=True):
        alone = answer(signatures["serving_default"], image_bytes=tf.constant([picture]))
        np.testing.assert_allclose(alone["probabilities"], p[None], atol=1e-5)
    for name, dtype in (("predict_images", tf.float32), ("predict_images_uint8", tf.uint8)):
        same = answer(signatures[name], images=tf.cast(pixels, dtype))
        np.testing.assert_allclose(same["probabilities"], together["probabilities"], atol=1e-6)


def test_classes_labels_and_scores_are_the_best_first(signatures):
    given = answer(
        signatures["predict_images_uint8"], images=np.random.default_rng(0).integers(0, 256, (6, 32, 32, 1), "uint8")
    )
    order = np.argsort(-given["probabilities"], axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(given["classes"], order)
    np.testing.assert_array_equal(given["scores"], np.take_along_axis(given["probabilities"], order, 1))
    assert given["labels"].tolist() == [[str(i).encode() for i in row] for row in order]  # digits are called by number
    np.testing.assert_allclose(given["probabilities"].sum(axis=1), 1, atol=1e-5)


BOMBS = {
    "truncated png": GOOD[: len(GOOD) // 2],
    "truncated jpeg": READABLE["jpeg"][:300],
    "start of a jpeg": b"\xff\xd8\xff",
    "nothing": b"",
    "text": b"<html>not found</html>",
    "30,000 x 30,000": encoded(Image.new("1", (30_000, 30_000)), "PNG"),
}


def test_a_bad_picture_does_not_lose_the_others(signatures):
    alone = answer(signatures["serving_default"], image_bytes=tf.constant([GOOD]))
    given = answer(signatures["serving_default"], image_bytes=tf.constant([GOOD, *BOMBS.values(), GOOD]))
    status = [s.decode() for s in given["status"]]
    assert status == ["ok", *["unreadable"] * 5, "too large", "ok"]
    for place in (0, -1):
        np.testing.assert_allclose(given["probabilities"][place], alone["probabilities"][0], atol=1e-6)
        assert given["labels"][place].tolist() == alone["labels"][0].tolist()
    bad = slice(1, -1)
    assert not given["probabilities"][bad].any()
    assert not given["scores"][bad].any()
    assert set(given["classes"][bad].ravel()) == {-1}
    assert set(given["labels"][bad].ravel().tolist()) == {b""}
    only_bad = answer(signatures["serving_default"], image_bytes=tf.constant([b"", b"x"]))
    assert only_bad["status"].tolist() == [b"unreadable"] * 2


def test_pixels_that_are_no_numbers_do_not_lose_the_others(signatures):
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 1)).astype("float32")
    alone = answer(signatures["predict_images"], images=tf.constant(images[2:]))
    images[0, 3, 3], images[1, 0, 0] = np.nan, np.inf
    given = answer(signatures["predict_images"], images=tf.constant(images))
    assert given["status"].tolist() == [b"not finite", b"not finite", b"ok"]
    np.testing.assert_allclose(given["probabilities"][2], alone["probabilities"][0], atol=1e-6)
    assert not given["probabilities"][:2].any()


def test_no_images_at_all_is_an_error_that_says_so(signatures):
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least one image"):
        signatures["serving_default"](image_bytes=tf.constant([], tf.string))


def test_long_and_huge_and_animated_pictures_take_bounded_time_and_memory(signatures):
    frames = [Image.new("L", (600, 600), i) for i in range(200)]
    pictures = {
        "1 x 60,000": encoded(Image.new("RGB", (1, 60_000), (9, 99, 200)), "PNG"),
        "60,000 x 1": encoded(Image.new("RGB", (60_000, 1), (9, 99, 200)), "PNG"),
        "animated gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "30,000 x 30,000": BOMBS["30,000 x 30,000"],
    }
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    given = answer(signatures["serving_default"], image_bytes=tf.constant(list(pictures.values())))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert [s.decode() for s in given["status"]] == ["ok", "ok", "ok", "too large"]
    assert grown < 300_000, "kB"  # the frames alone would be 216 MB, the large picture 2.7 GB
    assert time.monotonic() - began < 20


def test_4000_mutated_pictures_neither_end_nor_stop_it(signatures):
    """Bytes changed, cut out, doubled or cut off, of every kind of picture; a good one among them stays as it was."""
    random = np.random.default_rng(0)
    alone = answer(signatures["serving_default"], image_bytes=tf.constant([GOOD]))["probabilities"][0]
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), "uint8"))
    whole = [encoded(small, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP")]
    whole += [
        encoded(small, "GIF", save_all=True, append_images=[small.rotate(180)]),
        encoded(small, "WEBP", lossless=True),
    ]
    statuses = {}
    for _ in range(40):
        pictures = [mutated(whole[random.integers(len(whole))], random) for _ in range(100)]
        place = int(random.integers(101))
        given = answer(
            signatures["serving_default"], image_bytes=tf.constant([*pictures[:place], GOOD, *pictures[place:]])
        )
        np.testing.assert_allclose(given["probabilities"][place], alone, atol=1e-6)
        for status, total in zip(given["status"], given["probabilities"].sum(axis=1), strict=True):
            statuses[status] = statuses.get(status, 0) + 1
            assert total == pytest.approx(1.0 if status == OK.encode() else 0.0, abs=1e-5)
    assert sum(statuses.values()) == 4040
    assert min(statuses[b"ok"], statuses[b"unreadable"]) > 200, statuses


def mutated(picture, random):
    data = bytearray(picture)
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


def test_warm_up_requests_are_answered(exported, signatures):
    records = tf.data.TFRecordDataset(str(exported[1] / "assets.extra" / "tf_serving_warmup_requests"))
    asked = set()
    for record in records.as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == "digits"
        signature = signatures[request.model_spec.signature_name]
        given = answer(signature, **{name: tf.make_ndarray(value) for name, value in request.inputs.items()})
        assert set(given["status"].tolist()) == {b"ok"}
        asked.add((request.model_spec.signature_name, len(given["status"])))
    assert asked == {("serving_default", 1), ("serving_default", 8), ("predict_images", 1), ("predict_images_uint8", 1)}

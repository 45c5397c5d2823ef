import numpy as np
import pytest
import tensorflow as tf

from inception_v1 import decode_predictions, preprocess_input
from inception_v1.preprocessing import PIXELS, class_list, normalize
from inception_v1.spec import VARIANTS

# What the published code does to one RGB pixel (10, 100, 250), written out.
PUBLISHED = {
    "paper": (10 - 123, 100 - 117, 250 - 104),
    "batchnorm": (10 / 127.5 - 1, 100 / 127.5 - 1, 250 / 127.5 - 1),
    "plain": (10 / 127.5 - 1, 100 / 127.5 - 1, 250 / 127.5 - 1),
    "torchvision": (10 / 127.5 - 1, 100 / 127.5 - 1, 250 / 127.5 - 1),  # after its transform_input
    "slim": (10 / 127.5 - 1, 100 / 127.5 - 1, 250 / 127.5 - 1),
    "onnx_zoo": (10 - 123.68, 100 - 116.779, 250 - 103.939),
    "inception5h": (10 - 117, 100 - 117, 250 - 117),
    "cifar": (10 / 127.5 - 1, 100 / 127.5 - 1, 250 / 127.5 - 1),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_family_gets_its_pixels(variant):
    pixel = np.array([10, 100, 250], "uint8").reshape(1, 1, 1, 3)
    result = preprocess_input(pixel, variant)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.ravel(), PUBLISHED[variant], rtol=1e-5)


@pytest.mark.parametrize("pixels", PIXELS)
def test_frameworks_agree(pixels):
    jnp = pytest.importorskip("jax.numpy")
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), "uint8")
    expected = normalize(images, pixels)
    for array in (tf.constant(images), tf.constant(images, tf.float32), jnp.asarray(images)):
        np.testing.assert_allclose(normalize(array, pixels), expected, atol=1e-5)
    in_graph = tf.data.Dataset.from_tensors(images).map(lambda x: normalize(x, pixels))
    np.testing.assert_allclose(next(iter(in_graph)), expected, atol=1e-5)


def test_gray_takes_the_mean_constants():
    gray = np.full((1, 2, 2, 1), 200, "uint8")
    np.testing.assert_allclose(preprocess_input(gray, "paper"), 200 - (123 + 117 + 104) / 3, rtol=1e-6)
    np.testing.assert_allclose(preprocess_input(gray, "batchnorm"), 200 / 127.5 - 1, rtol=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"1 or 3 channels.*Received: "):
        preprocess_input(np.zeros((1, 2, 2, 4)))
    with pytest.raises(ValueError, match=r"variant.*'papper'.*mean 'paper'"):
        preprocess_input(np.zeros((1, 2, 2, 3)), "papper")


def test_class_lists_have_the_published_order():
    imagenet = class_list("imagenet", 1000)
    assert len(imagenet) == len({name for _, name in imagenet}) == 1000
    assert [wordnet for wordnet, _ in imagenet] == sorted(wordnet for wordnet, _ in imagenet)
    assert (imagenet[0], imagenet[207], imagenet[999]) == (
        ("n01440764", "tench"),
        ("n02099601", "golden retriever"),
        ("n15075141", "toilet tissue"),
    )
    inception5h = class_list("inception5h", 1008)
    assert (inception5h[0], inception5h[1], inception5h[1000], inception5h[1007]) == (
        ("", "dummy"),
        ("n02119789", "kit fox"),
        ("n03255030", "dumbbell"),
        ("", "1007"),
    )
    assert {wordnet for wordnet, _ in inception5h[1:1001] if wordnet} < {wordnet for wordnet, _ in imagenet}
    assert len({name for _, name in inception5h}) == 1007  # one name twice: maillot
    assert class_list("background+imagenet", 1001) == (("", "background"), *imagenet)


def test_decode_predictions_names_the_best():
    scores = np.zeros((2, 1001), "float32")
    scores[0, 208], scores[0, 0] = 0.75, 0.25
    scores[1, 1] = 1
    first, second = decode_predictions({"main": scores}, "slim", top=2)
    assert first == [("n02099601", "golden retriever", 0.75), ("", "background", 0.25)]
    assert second[0] == ("n01440764", "tench", 1.0)


@pytest.mark.parametrize(
    ("scores", "top", "message"),
    [
        (np.zeros((1, 10)), 5, r"\(batch, 1000\).*\(1, 10\)"),
        (np.zeros((1, 1000)), 0, "top"),
        (np.zeros(1000), 5, "shape"),
    ],
)
def test_decode_predictions_refuses_other_shapes(scores, top, message):
    with pytest.raises(ValueError, match=message):
        decode_predictions(scores, top=top)

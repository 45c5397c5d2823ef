import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from inception_v1 import build_googlenet
from training import evaluate
from training.evaluate import Predictions

ROOT = Path(__file__).parent.parent


def test_score_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]], "float32")
    result = evaluate.score(Predictions({"main": p, "aux1": p[::-1]}, np.array([0, 2, 1])))
    assert result["main"]["top1"] == pytest.approx(1 / 3)  # the tie of the third image is a miss
    assert result["main"]["top5"] == 1
    assert result["main"]["loss"] == pytest.approx(-np.log([0.7, 0.3, 1 / 3]).mean(), rel=1e-6)
    assert result["aux1"]["top1"] == 0


def test_top5_and_nan():
    p = np.tile(np.arange(10, dtype="float32") / 45, (2, 1))
    p[1] = np.nan
    result = evaluate.score(Predictions({"main": p}, np.array([5, 5])))["main"]
    assert (result["top1"], result["top5"]) == (0, 0.5)


def reference_views(height, width, size, count):
    """Boxes in pixels of the original as (top, left, height, width, mirrored), in NumPy, one by one."""
    boxes = []
    for scale in {10: [256], 144: [256, 288, 320, 352]}[count]:
        side = round(scale * size / 224)
        factor = side / min(height, width)
        rows, columns = round(height * factor), round(width * factor)
        for third in [0, 1, 2] if count == 144 else [1]:
            y, x = [(0, slack // 2, slack)[third] for slack in (rows - side, columns - side)]
            room = side - size
            for dy, dx in [(0, 0), (0, room), (room, 0), (room, room), (room // 2, room // 2)]:
                boxes.append(((y + dy) / factor, (x + dx) / factor, size / factor, size / factor))
            if count == 144:
                boxes.append((y / factor, x / factor, side / factor, side / factor))
    return [(*box, False) for box in boxes] + [(*box, True) for box in boxes]


@pytest.mark.parametrize("count", [10, 144])
@pytest.mark.parametrize(("height", "width", "size"), [(300, 400, 224), (500, 333, 224), (240, 240, 112), (40, 64, 32)])
def test_views_are_the_papers_crops_one_by_one(count, height, width, size):
    # Red and green tell the row and column of each pixel of the original, so that every crop says where it lies.
    where = np.stack([*np.indices((height, width)), np.zeros((height, width))], axis=-1).astype("float32")
    scale = 255 / max(height, width)
    result = evaluate.views(tf.constant(where * scale), size, count).numpy() / scale
    boxes = reference_views(height, width, size, count)
    assert len(boxes) == len(result) == count
    inner = slice(4, -4)  # at its border the interpolation bends the ramp
    centre = (np.arange(size) + 0.5) / size
    for view, (top, left, box_height, box_width, mirrored) in zip(result, boxes):
        rows, columns = top + centre * box_height - 0.5, left + centre * box_width - 0.5
        if mirrored:
            columns = columns[::-1]
        np.testing.assert_allclose(view[inner, inner, 0], np.tile(rows[inner, None], (1, size - 8)), atol=1.0)
        np.testing.assert_allclose(view[inner, inner, 1], np.tile(columns[None, inner], (size - 8, 1)), atol=1.0)


def test_of_a_long_picture_only_the_centre_is_viewed():
    long = tf.constant(np.random.default_rng(0).uniform(0, 255, (2, 1000, 3)), tf.float32)
    for count in (10, 144):
        for image in (long, tf.transpose(long, (1, 0, 2))):
            centre = image[:, 492:508] if image.shape[0] == 2 else image[492:508]
            np.testing.assert_array_equal(evaluate.views(image, 32, count), evaluate.views(centre, 32, count))


def test_predict_counts_a_partial_batch():
    model = build_googlenet(input_shape=(32, 32, 1), classes=3, width_multiplier=0.1)
    x, y = np.random.default_rng(0).normal(size=(7, 32, 32, 1)).astype("float32"), np.arange(7) % 3
    predictions = evaluate.predict(model, tf.data.Dataset.from_tensor_slices((x, y)).batch(4))
    np.testing.assert_array_equal(predictions.labels, y)
    for head, expected in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(predictions.by_head[head], expected, atol=1e-6)


REPLICAS = """
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from inception_v1 import build_googlenet
from training import evaluate

network = dict(input_shape=(32, 32, 1), classes=3, width_multiplier=0.1, aux=False)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    mirrored = build_googlenet("batchnorm", **network)
assert mirrored.distribute_strategy.num_replicas_in_sync == 2
alone = build_googlenet("batchnorm", **network)
alone.set_weights(mirrored.get_weights())
x = 100 * np.random.default_rng(0).normal(size=(9, 2, 32, 32, 1)).astype("float32")
for images in (x[:, 0], x):
    batches = tf.data.Dataset.from_tensor_slices((images, np.arange(9))).batch(4)
    shared, expected = evaluate.predict(mirrored, batches), evaluate.predict(alone, batches)
    np.testing.assert_array_equal(shared.labels, np.arange(9))
    for head, probabilities in expected.by_head.items():
        assert np.abs(np.diff(probabilities, axis=0)).max(axis=1).min() > 1e-3, head  # the images differ
        np.testing.assert_allclose(shared.by_head[head], probabilities, atol=1e-6)
print("equal")
"""


def test_replicas_share_batches_and_change_nothing():
    # A process of its own, since devices are split before TensorFlow starts. Batches of 4, 4 and 1 on two replicas.
    done = subprocess.run([sys.executable, "-c", REPLICAS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


@pytest.mark.parametrize("top", [0, -3])
def test_classify_names_at_least_one_class(top):
    with pytest.raises(ValueError, match=f"top to be 1 or more; Received: top={top}"):
        evaluate.classify("run", ["digit.png"], top)
    with pytest.raises(ValueError, match="at least one picture"):
        evaluate.classify("run", [])

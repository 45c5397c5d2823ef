import sys

import numpy as np
import pytest
import tensorflow as tf

from inception_v1 import build_googlenet
from tests.helpers.processes import done
from training.evaluation.metrics import score
from training.evaluation.predictor import Predictor, predict, sum_scores


def test_predict_counts_a_partial_batch():
    model = build_googlenet(input_shape=(32, 32, 1), classes=3, width_multiplier=0.1)
    x, y = np.random.default_rng(0).normal(size=(7, 32, 32, 1)).astype("float32"), np.arange(7) % 3
    predictions = predict(model, tf.data.Dataset.from_tensor_slices((x, y)).batch(4))
    np.testing.assert_array_equal(predictions.labels, y)
    for head, expected in model(x).items():
        np.testing.assert_allclose(predictions.by_head[head], expected, atol=1e-6)


def test_sums_of_the_parts_of_a_split_are_its_scores():
    """Nine images in batches of 4, 4 and 1; then on processes, one of which has only a partial batch and one none."""
    model = build_googlenet(input_shape=(32, 32, 1), classes=7, width_multiplier=0.1)
    x, y = np.random.default_rng(0).normal(size=(9, 32, 32, 1)).astype("float32"), np.arange(9) % 7
    whole = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    scores = score(predict(model, whole))
    parts = [tf.data.Dataset.from_tensor_slices((x[a:b], y[a:b])).batch(4) for a, b in ((0, 7), (7, 9), (9, 9))]
    predictor, heads = Predictor(model), len(model.spec.heads)
    for total in (sum_scores(predictor(whole), heads), sum(sum_scores(predictor(part), heads) for part in parts)):
        assert total.shape == (3, 4)
        for head, (top1, top5, loss, images) in zip(model.spec.heads, total, strict=True):
            assert (top1, top5, images) == (9 * scores[head]["top1"], 9 * scores[head]["top5"], 9)
            assert loss / images == pytest.approx(scores[head]["loss"], abs=1e-6)


REPLICAS = """
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from inception_v1 import build_googlenet
from training.evaluation.predictor import predict

keras.utils.set_random_seed(1)
network = dict(input_shape=(32, 32, 1), classes=3, width_multiplier=0.1, aux=False)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    mirrored = build_googlenet("batchnorm", **network)
assert mirrored.distribute_strategy.num_replicas_in_sync == 2
alone = build_googlenet("batchnorm", **network)
alone.set_weights(mirrored.get_weights())
x = 100 * np.random.default_rng(0).normal(size=(9, 2, 32, 32, 1)).astype("float32")
for images in (x[:, 0], x):
    batches = tf.data.Dataset.from_tensor_slices((images, np.arange(9))).batch(4)
    distributed, expected = predict(mirrored, batches), predict(alone, batches)
    np.testing.assert_array_equal(distributed.labels, np.arange(9))
    for head, probabilities in expected.by_head.items():
        assert np.abs(np.diff(probabilities, axis=0)).max(axis=1).min() > 1e-3, head  # the images differ
        np.testing.assert_allclose(distributed.by_head[head], probabilities, atol=1e-6)
print("equal")
"""


def test_replicas_share_batches_and_change_no_prediction():
    # In a process of its own, since devices are split before TensorFlow starts. Batches of 4, 4 and 1 on two replicas.
    assert done([sys.executable, "-c", REPLICAS]).endswith("equal\n")

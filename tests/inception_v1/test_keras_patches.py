"""A user's own script on two machines: both are processes on this one, each in a group of its own."""

import json
import sys
import textwrap

import numpy as np
import pytest

from inception_v1 import keras_patches
from tests.helpers.processes import free_ports, processes

pytestmark = pytest.mark.usefixtures("few_blocks")

SCRIPT = textwrap.dedent("""
    import sys

    import keras, numpy as np, tensorflow as tf
    from sklearn.datasets import load_digits

    from inception_v1 import build_googlenet

    several, out = sys.argv[1] == "several", sys.argv[2]
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if several else tf.distribute.get_strategy()
    images, labels = load_digits(return_X_y=True)
    images = np.kron(images.reshape(-1, 8, 8, 1), np.ones((1, 4, 4, 1))).astype("float32") / 8 - 1

    def batches(first, last):
        ds = tf.data.Dataset.from_tensor_slices((images[first:last], labels[first:last])).batch(32)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        return ds.with_options(options)

    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_googlenet(
            "batchnorm", input_shape=(32, 32, 1), classes=10, width_multiplier=0.1, dropout=(0.0, 0.0)
        )
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
                layer.epsilon = 1.0  # 0.001 multiplies rounding a thousandfold in a network as narrow as this
        model.compile(keras.optimizers.SGD(1.0, momentum=0.9, use_ema=True, ema_momentum=0.9))
    kept = {f"before {w.path}": keras.ops.convert_to_numpy(w).copy() for w in model.weights}
    stop = keras.callbacks.EarlyStopping("val_main_accuracy", mode="max", patience=5)
    history = model.fit(batches(0, 32), validation_data=batches(128, 195), epochs=2, callbacks=[stop], verbose=0)
    kept |= {f"history {name}": np.array(values) for name, values in history.history.items()}
    kept |= {f"weights {w.path}": keras.ops.convert_to_numpy(w) for w in model.weights}
    scores = model.evaluate(batches(128, 195), verbose=0, return_dict=True)
    kept |= {f"score {name}": np.array(value) for name, value in scores.items()}
    with strategy.scope():  # with an epsilon of 1, all images are nearly the same to the network above
        model = build_googlenet("plain", input_shape=(32, 32, 1), classes=10, width_multiplier=0.1, aux=False)
    kept |= {f"prediction {head}": p for head, p in model.predict(batches(128, 195), verbose=0).items()}
    np.savez(out, **kept)
""")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one process and each of two workers kept."""
    folder = tmp_path_factory.mktemp("workers")
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    names = ["one", "worker0", "worker1"]
    commands = [([sys.executable, "-c", SCRIPT, "one", str(folder / "one.npz")], {})]
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        command = [sys.executable, "-c", SCRIPT, "several", str(folder / f"worker{index}.npz")]
        commands.append((command, {"TF_CONFIG": json.dumps(task)}))
    with processes(commands) as started:
        for process in started:
            output = process.communicate(timeout=240)[0]
            assert process.returncode == 0, output[-2000:]
    return {name: dict(np.load(folder / f"{name}.npz")) for name in names}


def test_workers_end_bit_equal(results):
    for name, value in results["worker0"].items():
        np.testing.assert_array_equal(results["worker1"][name], value, err_msg=name)


def test_workers_end_as_one_process_does(results):
    """A network without batch normalization agrees more closely: see `test_faults`."""
    one, two, tolerance = results["one"], results["worker0"], 1e-5
    weights = [name for name in one if name.startswith("weights")]
    assert len(weights) > 100
    for name in weights:
        np.testing.assert_allclose(two[name], one[name], atol=tolerance, err_msg=name)
    kernels = [name for name in weights if name.endswith("kernel")]
    moved = [abs(one[name] - one[name.replace("weights", "before")]).max() for name in kernels]
    assert max(moved) > 100 * tolerance


def test_predictions_come_in_order(results):
    one, two = (results[name]["prediction main"] for name in ("one", "worker0"))
    assert one.shape == (67, 10)
    assert one.std(axis=0).max() > 1e-4  # the images differ, so that their order shows
    np.testing.assert_allclose(two, one, atol=1e-6)


def test_every_image_counts_once(results):
    """67 images make two whole batches and one of three, of which one worker gets two and the other one."""
    one, two = results["one"], results["worker0"]
    for name in ("score loss", "score main_accuracy", "score aux1_top5_accuracy", "history val_loss", "history loss"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, err_msg=name)


def test_an_untested_keras_is_refused(monkeypatch):
    monkeypatch.setattr(keras_patches.keras, "__version__", "3.99.0")
    with pytest.raises(RuntimeError, match=r"Keras 3\.15 .*keras-team/keras#20585.*Received: Keras 3\.99\.0"):
        keras_patches.patch_multi_worker_fit()

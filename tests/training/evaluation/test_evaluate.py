import dataclasses
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from inception_v1 import GoogLeNet, build_googlenet
from tests.helpers import ROOT
from training import recipe as recipes
from training.data import pipeline, sources
from training.evaluation import evaluate
from training.evaluation.evaluate import Predictions
from training.recipe import PRESETS
from training.run_folder import RunFolder

DIGITS = [str(digit) for digit in range(10)]


def save_run(folder, data_dir, classes=DIGITS, model=True, **changes):
    """The folder of a run on digits whose network was never trained, its logits spread by larger last kernels."""
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, width_multiplier=0.1, **changes)
    spec, run = recipes.network(recipe, 1, len(classes)), RunFolder(folder)
    run.create(recipe, spec, classes)
    if model:
        network = GoogLeNet(**spec.to_dict())
        for weight in network.weights:
            if weight.shape == (*weight.shape[:1], len(classes)):
                weight.assign(weight * 1000)
        network.save(run / "best.keras")
    rows = "".join(f"{epoch},{2 - epoch},0.5,{3 - epoch},{0.25 * epoch}\n" for epoch in range(3))
    (run / "history.csv").write_text(f"epoch,loss,main_accuracy,val_loss,val_main_accuracy\n{rows}")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    """Two that differ in all that may differ."""
    root = tmp_path_factory.mktemp("runs")
    return [
        save_run(root / "a", data_dir, test_split="test[:50]", batch_size=16),
        save_run(root / "b", data_dir, test_split="test[:50]", image_size=40, variant="torchvision", aux=False),
    ]


def random_predictions(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.3), count).astype("float32")
    labels = np.where(rng.random(count) < 0.6, p.argmax(axis=1), rng.integers(0, classes, count))
    return Predictions({"main": p}, labels)


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
    assert result["ece"] == pytest.approx((9 / 45 + 1) / 2)
    json.dumps(result, allow_nan=False)


def test_nothing_is_predicted_where_classes_tie_or_are_no_numbers():
    p = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [np.nan, 0, 1], [0, 1, np.nan], [0.1, 0.2, 0.7]], "float32")
    assert evaluate.predicted(p).tolist() == [-1, -1, -1, -1, 2]


def test_calibration_error_by_hand():
    confidence = np.array([0.55, 0.57, 0.95, 0.97])
    p = np.stack([confidence, 1 - confidence], axis=1).astype("float32")
    result = evaluate.score(Predictions({"main": p}, np.array([0, 1, 0, 0])))["main"]
    # Half of the images in (8/15, 9/15]: sure to 0.56, right in 0.5. Half in (14/15, 1]: sure to 0.96, right in 1.
    assert result["ece"] == pytest.approx(0.5 * 0.06 + 0.5 * 0.04)


def test_calibration_error_of_many_images():
    predictions = random_predictions(3000, 4)
    p, expected = predictions.by_head["main"], 0.0
    for lower in range(15):
        inside = [i for i in range(len(p)) if lower / 15 < p[i].max() <= (lower + 1) / 15]
        if inside:
            right = sum(p[i].argmax() == predictions.labels[i] for i in inside) / len(inside)
            expected += len(inside) / len(p) * abs(right - sum(float(p[i].max()) for i in inside) / len(inside))
    assert expected > 0.1
    assert evaluate.score(predictions)["main"]["ece"] == pytest.approx(expected, abs=1e-9)


def test_intervals_are_those_of_the_binomial_and_of_the_mean():
    predictions = random_predictions(2000, 10)
    scores = evaluate.score(predictions)["main"]
    for name in ("top1", "top5"):
        expected = scipy.stats.binom(2000, scores[name]).ppf([0.025, 0.975]) / 2000
        np.testing.assert_allclose(scores["intervals"][name], expected, atol=0.003)
    losses = -np.log(predictions.by_head["main"][np.arange(2000), predictions.labels].astype("float64"))
    half = 1.96 * losses.std() / np.sqrt(2000)
    np.testing.assert_allclose(scores["intervals"]["loss"], [losses.mean() - half, losses.mean() + half], rtol=0.02)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_few_images_have_intervals_too(count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = evaluate.score(random_predictions(count, 10))["main"]
    for name, (low, high) in scores["intervals"].items():
        assert low <= scores[name] <= high
        assert (low == high) == (count == 1) or name != "loss"


def test_precision_recall_and_f1_by_class():
    predictions = random_predictions(500, 6)
    labels, p = predictions.labels, predictions.by_head["main"]
    labels[labels == 4] = 5  # no image of class 4, though it is predicted
    p[:, 2] = 0  # class 2 is never predicted
    p[:20] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate.measured(predictions, list("abcdef"))
    assert (result["images"], list(result["classes"])) == (500, list("abcdef"))
    best = np.where(np.isnan(p[:, 0]), -1, p.argmax(axis=1))
    for label, numbers in enumerate(result["classes"].values()):
        right = np.sum((labels == label) & (best == label))
        precision, recall = right / max(1, np.sum(best == label)), right / max(1, np.sum(labels == label))
        f1 = 2 * precision * recall / (precision + recall) if right else 0
        assert numbers == pytest.approx(
            {"precision": precision, "recall": recall, "f1": f1, "images": np.sum(labels == label)}
        )
    assert result["classes"]["e"] == {"precision": 0, "recall": 0, "f1": 0, "images": 0}
    assert sum(c["recall"] * c["images"] for c in result["classes"].values()) == pytest.approx(
        result["heads"]["main"]["top1"] * 500
    )
    json.dumps(result, allow_nan=False)


def test_mcnemar_by_hand():
    right = np.array([[True, True]] * 7 + [[True, False]] * 1 + [[False, True]] * 9 + [[False, False]] * 3)
    counts, p = evaluate.mcnemar(*right.T)
    assert counts == {"both": 7, "first": 1, "second": 9, "neither": 3}
    assert p == pytest.approx(0.021484375)  # 2 (1 + 10) / 2^10
    assert evaluate.mcnemar(right[:7, 0], right[:7, 1])[1] == 1


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


def test_sums_of_the_parts_of_a_split_are_its_scores():
    """Nine images in batches of 4, 4 and 1; then as two processes, of which one has a partial batch alone."""
    model = build_googlenet(input_shape=(32, 32, 1), classes=7, width_multiplier=0.1)
    x, y = np.random.default_rng(0).normal(size=(9, 32, 32, 1)).astype("float32"), np.arange(9) % 7
    whole = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    scores = evaluate.score(evaluate.predict(model, whole))
    parts = [tf.data.Dataset.from_tensor_slices((x[a:b], y[a:b])).batch(4) for a, b in ((0, 7), (7, 9), (9, 9))]
    answers, heads = evaluate.answers(model), len(model.spec.heads)
    for total in (evaluate.summed(answers(whole), heads), sum(evaluate.summed(answers(part), heads) for part in parts)):
        assert total.shape == (3, 4)
        for head, (top1, top5, loss, images) in zip(model.spec.heads, total, strict=True):
            assert (top1, top5, images) == (9 * scores[head]["top1"], 9 * scores[head]["top5"], 9)
            assert loss / images == pytest.approx(scores[head]["loss"], abs=1e-6)


REPLICAS = """
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from inception_v1 import build_googlenet
from training.evaluation import evaluate

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


@pytest.fixture(scope="module")
def own(runs):
    """{(run's number, crops): predictions of its model alone, of 50 images}."""
    found = {}
    for number, folder in enumerate(runs):
        run = RunFolder(folder)
        recipe, model = run.recipe(), run.model()
        builder, splits = sources.load(recipe)
        found[number, 1] = evaluate.predict(model, pipeline.batches(builder, splits.test, recipe, training=False))
        found[number, 10] = evaluate.predict(model, evaluate.view_batches(builder, splits.test, recipe, 10))
    return found


def test_an_ensemble_is_the_mean_of_its_models_at_each_number_of_crops(runs, own):
    found = list(evaluate.evaluations(runs, None, (1, 10)))
    names = [str(run) for run in runs]
    assert [(e.runs, e.crops) for e in found] == [(names[:1], 1), (names, 1), (names[:1], 10), (names, 10)]
    for crops, (first, both) in zip((1, 10), (found[:2], found[2:])):
        a, b = own[0, crops].by_head["main"], own[1, crops].by_head["main"]
        assert np.abs(a - b).max() > 0.1
        assert list(first.predictions.by_head) == ["main", "aux1", "aux2"]
        assert list(both.predictions.by_head) == ["main"]  # the second has no other
        aux = own[0, crops].by_head["aux2"]
        np.testing.assert_allclose(first.predictions.by_head["aux2"], aux, atol=1e-6)
        np.testing.assert_allclose(both.predictions.by_head["main"], np.mean([a, b], axis=0), atol=1e-6)
        np.testing.assert_array_equal(both.predictions.labels, own[0, 1].labels)


def test_evaluate_gives_the_numbers_of_the_ensemble(runs, own):
    result = evaluate.evaluate(runs)
    mean = np.mean([own[0, 1].by_head["main"], own[1, 1].by_head["main"]], axis=0)
    expected = evaluate.measured(Predictions({"main": mean}, own[0, 1].labels), DIGITS)
    assert result["heads"].keys() == {"main"}
    assert result["heads"]["main"]["loss"] == pytest.approx(expected["heads"]["main"]["loss"], abs=1e-5)
    for name in ("images", "classes"):
        assert result[name] == expected[name]
    assert (result["runs"], result["split"], result["crops"]) == ([str(run) for run in runs], "test[:50]", 1)


def never(batches):
    raise AssertionError("nothing is computed before all runs are found good")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"source": "mnist"}, "of the same source; Received: 'digits' in .*a' and 'mnist' in .*other'"),
        ({"classes": [*DIGITS[:9], "ten"]}, "of the same classes"),
        ({"test_split": "test[:40]"}, r"of the same test split; Received: 'test\[:50\]' in .* and 'test\[:40\]' in"),
    ],
)
def test_runs_of_different_images_are_refused(runs, tmp_path, data_dir, other, message):
    folder = save_run(tmp_path / "other", data_dir, model=False, **{"test_split": "test[:50]", **other})
    with pytest.raises(ValueError, match="trained model"):
        evaluate.evaluate([runs[0], folder], track=never)
    (folder / "best.keras").touch()
    for call in (lambda: evaluate.evaluate([runs[0], folder], track=never), lambda: evaluate.compare(runs[0], folder)):
        with pytest.raises(ValueError, match=message):
            call()


def test_no_run_and_other_crops_are_refused(runs):
    with pytest.raises(ValueError, match="at least one run"):
        evaluate.evaluate([])
    with pytest.raises(ValueError, match="crops to be one of 1, 10, 144"):
        list(evaluate.evaluations(runs, crops=(1, 12), track=never))


def test_compare_counts_which_run_is_right(runs, own):
    result = evaluate.compare(*runs)
    right = [p.by_head["main"].argmax(axis=1) == p.labels for p in (own[0, 1], own[1, 1])]
    assert result["right"]["both"] == np.sum(right[0] & right[1])
    assert result["right"]["first"] == np.sum(right[0] & ~right[1]) > 0
    assert result["right"]["second"] == np.sum(~right[0] & right[1]) > 0
    assert sum(result["right"].values()) == result["images"] == 50
    assert result["significant"] == (result["p"] < 0.05)
    assert result["difference"]["top1"] == pytest.approx(right[1].mean() - right[0].mean())
    low, high = result["difference"]["interval"]
    half = 1.96 * np.std(right[1].astype(int) - right[0]) / np.sqrt(50)
    assert low < result["difference"]["top1"] < high
    assert high - low == pytest.approx(2 * half, rel=0.2)
    for run, one, r in zip(runs, result["runs"], right):
        assert (one["run"], one["heads"]["main"]["top1"]) == (str(run), pytest.approx(r.mean()))
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("top", [0, -3])
def test_classify_names_at_least_one_class(top):
    with pytest.raises(ValueError, match=f"top to be 1 or more; Received: top={top}"):
        evaluate.classify("run", ["digit.png"], top)
    with pytest.raises(ValueError, match="at least one picture"):
        evaluate.classify("run", [])

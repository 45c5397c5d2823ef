import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from inception_v1.preprocessing import normalize
from training.data import sources
from training.evaluation.crops import crop, crop_batches
from training.evaluation.evaluate import evaluate
from training.evaluation.predictor import predict
from training.run_folder import RunFolder


def reference_crops(height, width, size, count):
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
def test_crops_are_those_of_the_paper_one_by_one(count, height, width, size):
    # Red and green are the row and column of each pixel of the original, so that every crop shows where it lies.
    where = np.stack([*np.indices((height, width)), np.zeros((height, width))], axis=-1).astype("float32")
    scale = 255 / max(height, width)
    result = crop(tf.constant(where * scale), size, count).numpy() / scale
    boxes = reference_crops(height, width, size, count)
    assert len(boxes) == len(result) == count
    inner = slice(4, -4)  # at its border the interpolation bends the ramp
    center = (np.arange(size) + 0.5) / size
    for pixels, (top, left, box_height, box_width, mirrored) in zip(result, boxes):
        rows, columns = top + center * box_height - 0.5, left + center * box_width - 0.5
        if mirrored:
            columns = columns[::-1]
        np.testing.assert_allclose(pixels[inner, inner, 0], np.tile(rows[inner, None], (1, size - 8)), atol=1.0)
        np.testing.assert_allclose(pixels[inner, inner, 1], np.tile(columns[None, inner], (size - 8, 1)), atol=1.0)


def test_of_a_long_image_only_the_center_is_cropped():
    long = tf.constant(np.random.default_rng(0).uniform(0, 255, (2, 1000, 3)), tf.float32)
    for count in (10, 144):
        for image in (long, tf.transpose(long, (1, 0, 2))):
            center = image[:, 492:508] if image.shape[0] == 2 else image[492:508]
            np.testing.assert_array_equal(crop(image, 32, count), crop(center, 32, count))


@pytest.mark.parametrize("count", [10, 144])
def test_probabilities_are_averaged_over_the_crops(runs, count):
    run = RunFolder(runs[0])
    recipe, model = run.recipe(), run.model()
    test = sources.load(dataclasses.replace(recipe, test_split="test[:3]")).test
    predictions = predict(model, crop_batches(test, recipe, count))
    for index, example in enumerate(test.builder.as_dataset(test.name)):
        crops = crop(tf.cast(example["image"], tf.float32), 32, count)
        each = model(normalize(crops, "signed"))
        assert predictions.labels[index] == example["label"]
        for head, probabilities in each.items():
            np.testing.assert_allclose(predictions.by_head[head][index], np.mean(probabilities, axis=0), atol=1e-5)
    result = evaluate(run.path, "test[:7]", count)
    assert (result["crops"], result["images"]) == (count, 7)
    with pytest.raises(ValueError, match="crops to be one of 1, 10, 144"):
        evaluate(run.path, crops=12)

import warnings

import numpy as np
import pytest

from tests.helpers.images import make_folder
from training.evaluation.metrics import Predictions
from training.recipe import Recipe
from training.report import figures
from training.run_folder import read_history


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_confusion_counts_predictions_of_true_classes(predictions, classes):
    axes = figures.confusion(predictions, classes).axes[0]
    assert axes.get_title() == "2 of 4 right (50.00%)"
    np.testing.assert_allclose(axes.images[0].get_array(), [[1, 0, 0], [1, 0, 0], [0.5, 0, 0.5]])
    assert sorted(texts(axes)) == ["1"] * 4


def test_confusion_leaves_out_images_without_a_prediction(classes):
    p = np.array([[0.5, 0.5, 0], [np.nan, 0, 1], [0, 1, 0], [0, 0.1, 0.9]], "float32")
    axes = figures.confusion(Predictions({"main": p}, np.array([2, 2, 1, 2])), classes).axes[0]
    assert axes.get_title() == "2 of 4 right (50.00%)"
    np.testing.assert_allclose(axes.images[0].get_array(), [[0, 0, 0], [0, 1, 0], [0, 0, 1 / 3]])


def test_reliability_draws_accuracy_and_gap_by_confidence():
    p = np.array([[0.55, 0.45], [0.57, 0.43], [0.95, 0.05], [0.97, 0.03]], "float32")
    figure = figures.reliability(Predictions({"main": p}, np.array([0, 1, 0, 0])))
    bars, gaps = figure.axes[0].containers
    assert [bar.get_height() for bar in bars] == [0.5, 1]
    assert [bar.get_x() for bar in bars] == pytest.approx([8 / 15, 14 / 15])
    assert [gap.get_y() + gap.get_height() for gap in gaps] == pytest.approx([0.56, 0.96])
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0] * 8 + [2] + [0] * 5 + [2]
    assert figure.axes[0].get_title() == "expected calibration error 5.00% over 4 images"


def test_mistakes_without_a_prediction_come_first(classes):
    p = np.array([[0.9, 0.1, 0], [np.nan, 0, 1]], "float32")
    predictions = Predictions({"main": p}, np.array([0, 0]))
    assert figures.least_certain(predictions) == [1, 0]
    figure = figures.mistakes(predictions, np.zeros((2, 8, 8, 1), "uint8"), classes)
    assert "seen as no class" in figure.axes[0].get_title()


def test_mistakes_come_first_with_their_names(predictions, classes):
    images = {index: np.zeros((8, 8, 1), "uint8") for index in figures.least_certain(predictions)}
    assert list(images) == [3, 1, 2, 0]
    figure = figures.mistakes(predictions, images, classes)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["cow 10.0%\nseen as ant 80.0%", "bee 30.0%\nseen as ant 60.0%", "cow 60.0%", "ant 90.0%"]
    assert "2 of 4 wrong" in figure.get_suptitle()


@pytest.mark.parametrize("heads", [("main", "aux1", "aux2"), ("main",)])
def test_curves_draw_every_head(tmp_path, heads):
    several = len(heads) > 1
    columns = ["epoch", "loss", "val_loss"]
    columns += [
        f"{p}{h}_{k}" for p in ("", "val_") for h in heads for k in (("loss", "accuracy") if several else ("accuracy",))
    ]
    path = tmp_path / "history.csv"
    path.write_text("\n".join([",".join(columns), *(",".join(str(0.1 * (e + 1)) for _ in columns) for e in range(3))]))
    figure = figures.curves(read_history(path))
    assert [len(axes.lines) for axes in figure.axes] == [2 * len(heads)] * 2


def test_compared_curves_mark_the_best_epoch_of_each_run():
    first = {"epoch": [0, 1, 2], "val_main_loss": [3, 1, 2], "val_main_accuracy": [0.1, 0.5, 0.5]}
    second = {"epoch": [0, 1], "val_main_loss": [2, 4], "val_main_accuracy": [0.3, 0.2]}
    histories = {name: {k: np.array(v) for k, v in h.items()} for name, h in {"a": first, "b": second}.items()}
    figure = figures.compared_curves(histories)
    for axes, kind in zip(figure.axes, ("loss", "accuracy")):
        lines = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
        values = [h[f"val_main_{kind}"] for h in (first, second)]
        # Of equal epochs the latest is the best: the third of the first run.
        assert lines == [([1, 2, 3], values[0]), ([3], [values[0][2]]), ([1, 2], values[1]), ([1], [values[1][0]])]
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["a", "b"]


@pytest.mark.parametrize("paper", [True, False])
def test_augmentation_shows_each_draw_beside_its_image(tmp_path, paper):
    recipe = Recipe(source=make_folder(tmp_path, count=10), image_size=48, paper_augment=paper, rotate=10.0)
    figure = figures.augmentation(recipe, rows=2, columns=3)
    assert len(figure.axes) == 2 * 4
    for row in range(2):
        original, *draws = figure.axes[4 * row : 4 * row + 4]
        assert original.get_title() in ("cat", "dog")
        assert original.images[0].get_array().shape == (40, 50, 3)
        assert {axes.images[0].get_array().shape for axes in draws} == {(48, 48, 3)}
        boxes = [p for p in original.patches if p.get_width() > 0]
        assert len(boxes) == (3 if paper else 0)
        for box in boxes:
            assert 0 <= box.get_x() <= box.get_x() + box.get_width() <= 50
            assert 0 <= box.get_y() <= box.get_y() + box.get_height() <= 40


def test_augmentation_leaves_out_the_images_that_training_leaves_out(tmp_path):
    source = make_folder(tmp_path, count=10)
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    figure = figures.augmentation(Recipe(source=source, image_size=48), rows=3, columns=1)
    assert [axes.get_title() for axes in figure.axes[::2]] == ["dog"] * 3


def test_class_names_in_any_script_are_drawn_without_a_warning(predictions, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(
            figures.confusion(predictions, ["кот", "猫", "🐈 mathematical \U0001d49c"]), tmp_path / "names.png"
        )
    assert (tmp_path / "names.png").stat().st_size > 1000
    assert figures.font_families("кот") == ["sans-serif"]
    assert len(figures.font_families("cat \U0001d4b6")) == 2  # STIX, which comes with matplotlib, has it

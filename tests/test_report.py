import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from training import report
from training.evaluate import Predictions
from training.recipe import Recipe

from .test_sources import make_folder

CLASSES = ["ant", "bee", "cow"]
PROBABILITIES = np.array([[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1]], "float32")
PREDICTIONS = Predictions({"main": PROBABILITIES}, np.array([0, 1, 2, 2]))


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_confusion_counts_predictions_of_true_classes():
    axes = report.confusion(PREDICTIONS, CLASSES).axes[0]
    assert axes.get_title() == "2 of 4 right (50.00%)"
    np.testing.assert_allclose(axes.images[0].get_array(), [[1, 0, 0], [1, 0, 0], [0.5, 0, 0.5]])
    assert sorted(texts(axes)) == ["1"] * 4


def test_mistakes_come_first_with_their_names():
    images = {index: np.zeros((8, 8, 1), "uint8") for index in report.least_certain(PREDICTIONS)}
    assert list(images) == [3, 1, 2, 0]
    figure = report.mistakes(PREDICTIONS, images, CLASSES)
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
    figure = report.curves(report.read_history(path))
    assert [len(axes.lines) for axes in figure.axes] == [2 * len(heads)] * 2


def test_write_leaves_three_pictures(tmp_path):
    history = tmp_path / "history.csv"
    history.write_text("epoch,loss,main_accuracy,val_loss,val_main_accuracy\n0,1,0.5,1,0.5\n")
    report.write(tmp_path / "report", history, PREDICTIONS, np.zeros((4, 8, 8, 3), "uint8"), CLASSES)
    found = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert found == ["confusion.png", "curves.png", "mistakes.png"]
    for path in (tmp_path / "report").iterdir():
        Image.open(path).verify()


@pytest.mark.parametrize("paper", [True, False])
def test_augmentation_shows_each_draw_beside_its_picture(tmp_path, paper):
    recipe = Recipe(source=make_folder(tmp_path, count=10), image_size=48, paper_augment=paper, rotate=10.0)
    figure = report.augmentation(recipe, rows=2, columns=3)
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


def test_tables_show_the_numbers():
    console = Console(record=True, width=80)
    result = {"images": 360, "split": "test", "heads": {"main": {"top1": 0.985, "top5": 1.0, "loss": 0.05}}}
    console.print(report.score_table(result))
    console.print(report.class_table("a.png", [("seven", 0.75)]))
    text = console.export_text()
    for expected in ("360 images of test", "98.50%", "100.00%", "0.0500", "a.png", "seven", "75.00%"):
        assert expected in text

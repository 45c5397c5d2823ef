import csv
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.training.data.test_sources import make_folder
from training.evaluation.evaluate import Predictions
from training.recipe import Recipe
from training.report import figures as report

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


def test_confusion_leaves_out_what_is_no_prediction():
    p = np.array([[0.5, 0.5, 0], [np.nan, 0, 1], [0, 1, 0], [0, 0.1, 0.9]], "float32")
    axes = report.confusion(Predictions({"main": p}, np.array([2, 2, 1, 2])), CLASSES).axes[0]
    assert axes.get_title() == "2 of 4 right (50.00%)"
    np.testing.assert_allclose(axes.images[0].get_array(), [[0, 0, 0], [0, 1, 0], [0, 0, 1 / 3]])


def test_reliability_draws_accuracy_and_gap_by_confidence():
    p = np.array([[0.55, 0.45], [0.57, 0.43], [0.95, 0.05], [0.97, 0.03]], "float32")
    figure = report.reliability(Predictions({"main": p}, np.array([0, 1, 0, 0])))
    bars, gaps = figure.axes[0].containers
    assert [bar.get_height() for bar in bars] == [0.5, 1]
    assert [bar.get_x() for bar in bars] == pytest.approx([8 / 15, 14 / 15])
    assert [gap.get_y() + gap.get_height() for gap in gaps] == pytest.approx([0.56, 0.96])
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0] * 8 + [2] + [0] * 5 + [2]
    assert figure.axes[0].get_title() == "expected calibration error 5.00% over 4 images"


def test_mistakes_without_a_prediction_come_first():
    p = np.array([[0.9, 0.1, 0], [np.nan, 0, 1]], "float32")
    predictions = Predictions({"main": p}, np.array([0, 0]))
    assert report.least_certain(predictions) == [1, 0]
    figure = report.mistakes(predictions, np.zeros((2, 8, 8, 1), "uint8"), CLASSES)
    assert "seen as no class" in figure.axes[0].get_title()


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


def test_compared_curves_mark_the_epoch_that_each_run_kept():
    first = {"epoch": [0, 1, 2], "val_main_loss": [3, 1, 2], "val_main_accuracy": [0.1, 0.5, 0.5]}
    second = {"epoch": [0, 1], "val_main_loss": [2, 4], "val_main_accuracy": [0.3, 0.2]}
    histories = {name: {k: np.array(v) for k, v in h.items()} for name, h in {"a": first, "b": second}.items()}
    figure = report.compared_curves(histories)
    for axes, kind in zip(figure.axes, ("loss", "accuracy")):
        lines = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
        values = [h[f"val_main_{kind}"] for h in (first, second)]
        # Of equals the latest: the third epoch of the first run.
        assert lines == [([1, 2, 3], values[0]), ([3], [values[0][2]]), ([1, 2], values[1]), ([1], [values[1][0]])]
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["a", "b"]


def test_a_run_without_history_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"history\.csv of a run; Received: .*absent"):
        report.read_history(tmp_path / "absent")


def test_write_leaves_pictures_and_a_table(tmp_path):
    history = tmp_path / "history.csv"
    history.write_text("epoch,loss,main_accuracy,val_loss,val_main_accuracy\n0,1,0.5,1,0.5\n")
    report.write(tmp_path / "report", history, PREDICTIONS, np.zeros((4, 8, 8, 3), "uint8"), CLASSES)
    found = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert found == ["classes.csv", "confusion.png", "curves.png", "mistakes.png", "reliability.png"]
    for path in (tmp_path / "report").glob("*.png"):
        Image.open(path).verify()


def test_numbers_by_class_are_a_table(tmp_path):
    report.write_evaluation(tmp_path / "new" / "report", PREDICTIONS, CLASSES)
    with (tmp_path / "new" / "report" / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["class", "precision", "recall", "f1", "images"]
    # Ant is predicted three times for one ant, bee never, cow once for two cows.
    expected = [("ant", 1 / 3, 1, 0.5, 1), ("bee", 0, 0, 0, 1), ("cow", 1, 0.5, 2 / 3, 2)]
    for row, (name, *numbers) in zip(rows, expected, strict=True):
        assert row["class"] == name
        assert [float(value) for value in list(row.values())[1:]] == pytest.approx(numbers)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".JSON"])
def test_predictions_survive_a_file_to_the_bit(tmp_path, suffix):
    classes = ["index", 'Schäfer, "deutscher"', "p_cow"]
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype("float32")
    p[3] = (1e-30, np.nan, 0.5)
    labels = np.arange(50) % 3
    path = tmp_path / f"p{suffix}"
    report.write_predictions(path, Predictions({"main": p, "aux1": p[::-1]}, labels), classes)
    if suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]
        probabilities = [[row[f"p_{name}"] for name in classes] for row in rows]
    else:
        rows = json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)  # NaN is no JSON
        probabilities = [[row["probabilities"][name] for name in classes] for row in rows]
    assert [int(row["index"]) for row in rows] == list(range(50))
    assert [row["label"] for row in rows] == [classes[label] for label in labels]
    best = [classes[i] for i in p.argmax(axis=1)]
    best[3] = None
    assert [row["predicted"] for row in rows] == best
    np.testing.assert_array_equal(np.array(probabilities, "float32"), p)


def test_files_that_cannot_be_written_are_refused(tmp_path):
    for path, message in ((tmp_path / "p.txt", r"\.csv or \.json"), (tmp_path / "absent" / "p.csv", "folder that")):
        with pytest.raises(ValueError, match=message):
            report.write_predictions(path, PREDICTIONS, CLASSES)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "report"):
        with pytest.raises(ValueError, match=r"Expected a folder; Received: .* is a file"):
            report.check_folder(path)
    report.check_folder(tmp_path / "new" / "report")
    with pytest.raises(IndexError):  # a class has no name: the file is not left half-written
        report.write_predictions(tmp_path / "p.csv", PREDICTIONS, CLASSES[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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


def test_augmentation_leaves_out_what_training_leaves_out(tmp_path):
    source = make_folder(tmp_path, count=10)
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    figure = report.augmentation(Recipe(source=source, image_size=48), rows=3, columns=1)
    assert [axes.get_title() for axes in figure.axes[::2]] == ["dog"] * 3


def printed(*renderables):
    console = Console(record=True, width=80)
    console.print(*renderables)
    return console.export_text()


def cells(text):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]


INTERVALS = {"top1": [0.96, 0.995], "top5": [1.0, 1.0], "loss": [0.04, 0.0625]}
SCORES = {"top1": 0.985, "top5": 1.0, "loss": 0.05, "ece": 0.0123, "intervals": INTERVALS}


def test_tables_show_the_numbers():
    text = printed(report.score_table({"images": 360, "split": "test", "heads": {"main": SCORES}}))
    assert text.splitlines()[0].strip() == "360 images of test"
    assert cells(text) == [
        ["main", "98.50%", "100.00%", "0.0500", "0.0123"],
        ["", "96.00-99.50", "100.00-100.00", "0.0400-0.0625", ""],
    ]
    several = {"images": 360, "split": "test", "runs": ["a", "b"], "crops": 10, "heads": {"main": SCORES}}
    assert "360 images of test, 2 models, 10 crops each" in printed(report.score_table(several))
    assert cells(printed(report.class_table("a.png", [("seven", 0.75)]))) == [["seven", "75.00%"]]


def test_ensembles_are_tabled_as_in_the_paper():
    """Table 3 of arXiv 1409.4842: models, crops, cost, top-5 error and the change from the first row."""
    paper = [(1, 1, 10.07, 0), (7, 1, 8.09, -1.98), (1, 10, 9.15, -0.92), (7, 10, 7.62, -2.45), (1, 144, 7.89, -2.18)]
    results = [
        {
            "images": 50_000,
            "split": "validation",
            "runs": ["run"] * models,
            "crops": crops,
            "heads": {"main": SCORES | {"top1": 0.7 + 0.01 * models, "top5": 1 - error / 100}},
        }
        for models, crops, error, _ in paper
    ]
    text = printed(report.ensemble_table(results))
    assert "50,000 images of validation" in text
    rows = cells(text)
    assert [row[:3] for row in rows] == [
        ["1", "1", "1"],
        ["1", "10", "10"],
        ["1", "144", "144"],
        ["7", "1", "7"],
        ["7", "10", "70"],
    ]
    assert [row[3:5] for row in rows] == [["29.00%", "base"], *[["29.00%", "+0.00"]] * 2, *[["23.00%", "-6.00"]] * 2]
    order = [paper[0], paper[2], paper[4], paper[1], paper[3]]
    expected = [[f"{error:.2f}%", f"{change:+.2f}"] for _, _, error, change in order]
    assert [row[5:] for row in rows] == [["10.07%", "base"], *expected[1:]]


def test_a_comparison_says_what_differs():
    result = {
        "images": 20,
        "split": "test",
        "runs": [{"run": "runs/a", "heads": {"main": SCORES}}, {"run": "runs/b", "heads": {"main": SCORES}}],
        "right": {"both": 7, "first": 1, "second": 9, "neither": 3},
        "difference": {"top1": 0.4, "interval": [0.15, 0.65]},
        "p": 0.021484375,
        "significant": True,
    }
    rows = cells(printed(report.comparison_table(result)))
    assert [row[:2] for row in rows[::2]] == [["runs/a", "98.50%"], ["runs/b", "98.50%"]]
    assert cells(printed(report.agreement_table(result))) == [["first right", "7", "1"], ["first wrong", "9", "3"]]
    assert report.verdict(result) == (
        "The second's top-1 less the first's is +40.00 points (+15.00 to +65.00); the difference is significant at 5 % "
        "(McNemar's exact test, p = 0.02148)."
    )
    assert "difference is not significant at 5 %" in report.verdict(result | {"significant": False})

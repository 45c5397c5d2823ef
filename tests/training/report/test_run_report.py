import csv
import json

import numpy as np
import pytest
from PIL import Image

from training.evaluation.metrics import Predictions
from training.report.run_report import write_evaluation, write_predictions, write_run_report
from training.run_folder import RunFolder


def test_a_run_report_is_figures_and_a_table(tmp_path, predictions, classes):
    history = tmp_path / "history.csv"
    history.write_text("epoch,loss,main_accuracy,val_loss,val_main_accuracy\n0,1,0.5,1,0.5\n")
    write_run_report(RunFolder(tmp_path), predictions, iter(np.zeros((4, 8, 8, 3), "uint8")), classes)
    found = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert found == ["classes.csv", "confusion.png", "curves.png", "mistakes.png", "reliability.png"]
    for path in (tmp_path / "report").glob("*.png"):
        Image.open(path).verify()


def test_numbers_by_class_are_a_table(tmp_path, predictions, classes):
    write_evaluation(tmp_path / "new" / "report", predictions, classes)
    with (tmp_path / "new" / "report" / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["class", "precision", "recall", "f1", "images"]
    # Ant is predicted three times for one ant, bee never, cow once for two cows.
    expected = [("ant", 1 / 3, 1, 0.5, 1), ("bee", 0, 0, 0, 1), ("cow", 1, 0.5, 2 / 3, 2)]
    for row, (name, *numbers) in zip(rows, expected, strict=True):
        assert row["class"] == name
        assert [float(value) for value in list(row.values())[1:]] == pytest.approx(numbers)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".JSON"])
def test_predictions_are_bitwise_identical_after_a_file(tmp_path, suffix):
    classes = ["index", 'Schäfer, "deutscher"', "p_cow"]
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype("float32")
    p[3] = (1e-30, np.nan, 0.5)
    labels = np.arange(50) % 3
    path = tmp_path / f"p{suffix}"
    write_predictions(path, Predictions({"main": p, "aux1": p[::-1]}, labels), classes)
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


def test_files_that_cannot_be_written_are_refused(tmp_path, predictions, classes):
    for path, message in ((tmp_path / "p.txt", r"\.csv or \.json"), (tmp_path / "absent" / "p.csv", "folder that")):
        with pytest.raises(ValueError, match=message):
            write_predictions(path, predictions, classes)
    with pytest.raises(IndexError):  # a class has no name: the file is not left half-written
        write_predictions(tmp_path / "p.csv", predictions, classes[:2])
    assert not list(tmp_path.iterdir())

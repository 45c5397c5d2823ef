"""The page of a run, from the files of its folder."""

import dataclasses
import os

import pytest

from inception_v1.atomic_files import write_json
from tests.helpers.pages import HOSTILE, Page, check_self_contained
from tests.helpers.runs import save_run
from training.evaluation.metrics import summarize
from training.presets import PRESETS
from training.report import figures
from training.report.run_page import nearest_preset, updated_run_page, write_run_page
from training.run_folder import RunFolder


@pytest.fixture
def run(tmp_path, data_dir, monkeypatch):
    """A run of which no epoch has been tested; its curves are not drawn."""
    monkeypatch.setattr(figures, "save", lambda figure, path: path.write_bytes(b"figure"))
    return RunFolder(save_run(tmp_path / "run", data_dir, model=False, learning_rate=0.03))


def test_the_page_of_a_finished_run_has_all_that_the_folder_holds(run, predictions):
    classes = [HOSTILE, "bee", "cow"]
    known = {"status": "finished", "epochs": 3, "seconds": 7.5, "best_epoch": 2, "command": "googlenet train"}
    known |= {"environment": {"versions": {"keras": "3.15.1"}, "backend": "tensorflow", "devices": ["a CPU"]}}
    known |= {"unreadable": {"train": ["bad.png"]}, "duplicates": [{"train": ["a.png"], "test": ["b.png", "c.png"]}]}
    known |= {"data_warnings": ["train has no image of bee"], "splits": {"train": "train", "test": "test[:4]"}}
    known |= {"warnings": {"aux1": "aux1 does not learn"}}
    write_json(run / "metrics.json", known | summarize(predictions, classes))
    (run / "report").mkdir()
    for name in ("confusion", "reliability", "mistakes"):
        (run / "report" / f"{name}.png").write_bytes(b"figure")
    text = write_run_page(run).read_text("utf-8")
    page = Page(text)
    assert check_self_contained(text) == 4
    assert f"{run.path}: finished, 3 epochs done; the best, whose weights are kept, is epoch 2." in page.texts
    notes = {"1 unreadable image is left out", "train has no image of bee", "aux1 does not learn"}
    assert notes <= set(page.texts)
    assert ["validation, main", "25.00%", "", "2.0000"] in page.rows  # of the second epoch
    assert page.rows[page.rows.index(["head", "top-1", "top-5", "loss", "ECE"]) + 1][1] == "50.00% (0.00-100.00)"
    worst, *_ = page.rows[page.rows.index(["class", "precision", "recall", "F1", "images"]) + 1 :]
    assert worst == ["bee", "0.0000", "0.0000", "0.0000", "1"]
    assert [HOSTILE, "0.3333", "1.0000", "0.5000", "1"] in page.rows
    assert ["a.png", "b.png, c.png"] in page.rows
    assert ["train", "bad.png"] in page.rows
    changed = page.rows[page.rows.index(["setting", "this run", "preset digits"]) + 1 :]
    assert changed[:3] == [
        ["data_dir", run.recipe().data_dir, "none"],
        ["width_multiplier", "0.1", "0.5"],
        ["learning_rate", "0.03", "0.1"],
    ]
    for row in (["keras", "3.15.1"], ["devices", "a CPU"], ["command", "googlenet train"], ["seconds", "7.5"]):
        assert row in page.rows


def test_an_unfinished_run_has_a_page_of_what_there_is_which_follows_it(run):
    """Also one that was killed before it had metrics.json or an epoch."""
    history = (run / "history.csv").read_text()
    (run / "history.csv").unlink()
    page = Page(updated_run_page(run).read_text("utf-8"))
    assert {"Not measured.", "No epoch has ended."} <= set(page.texts)
    assert "Images" not in page.texts
    (run / "history.csv").write_text(history)
    write_json(run / "metrics.json", {"status": "interrupted", "epochs": 1, "best_epoch": 1})
    text = updated_run_page(run).read_text("utf-8")
    assert check_self_contained(text) == 1
    assert "interrupted, 1 epoch done" in text
    before = os.stat(run / "report" / "report.html").st_mtime_ns
    assert updated_run_page(run).stat().st_mtime_ns == before


def test_the_nearest_preset_is_that_of_which_the_fewest_settings_changed():
    for name, preset in PRESETS.items():
        assert nearest_preset(dataclasses.replace(preset, source="folder:photos", seed=3, epochs=7)) == name

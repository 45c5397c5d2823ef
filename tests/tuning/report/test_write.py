"""The files that a search leaves behind: tables, the best network, figures and logs for TensorBoard."""

import csv
import dataclasses
import time

import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from inception_v1.spec import BLOCKS, read_spec
from tests.helpers.searches import PAPER, make_results, make_trial, make_trials, rendered
from training.presets import read_recipe
from tuning.report import write
from tuning.report.terminal import best_table
from tuning.results import COMPLETED, RUNNING

FIGURES = ["history.png", "importance.png", "parallel.png", "pareto.png", "widths.png"]


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_every_number_of_every_trial(tmp_path, unrendered):
    done = make_trial(0, 0.9, {"1x1": 1.0, "schedule": "cosine"}, metrics={"val_loss": 1 / 3, "learning_rate": 1e-3})
    failed = make_trial(3, None, {"1x1": 0.5}, message='Traceback:\n  a line\nValueError: no, "no"\n\n', epochs=0)
    write.write_search_report(tmp_path, make_results(done, failed))
    first, second = read(tmp_path / "trials.csv")
    assert list(first) == [
        *("number", "status", "score", "1x1", "schedule", "params", "macs", "relative_macs", "epochs", "seconds"),
        *("val_loss", "learning_rate", *(f"widths_{block}" for block in BLOCKS), "message"),
    ]
    assert (first["number"], first["status"], float(first["score"])) == ("0", COMPLETED, 0.9)
    assert (first["schedule"], float(first["val_loss"])) == ("cosine", 1 / 3)
    assert first["widths_3a"] == "32-48-64-8-16-16"
    assert (int(second["params"]), int(second["macs"])) == (failed.params, failed.macs)
    assert float(second["relative_macs"]) == failed.macs / done.macs > 1
    assert (second["score"], second["schedule"], second["val_loss"]) == ("", "", "")
    assert second["widths_3a"] == "35-51-67-11-19-19"
    assert second["message"] == 'ValueError: no, "no"'


def test_columns_of_one_name_can_be_told_apart(tmp_path, unrendered):
    values = {"epochs": 3, "learning_rate": 0.5}
    write.write_search_report(
        tmp_path, make_results(make_trial(0, 0.9, values, metrics={"learning_rate": 0.01, "score": 0.2}))
    )
    (row,) = read(tmp_path / "trials.csv")
    found = {name: float(row[name]) for name in ("epochs", "value.epochs", "learning_rate", "metric.learning_rate")}
    assert found == {"epochs": 8, "value.epochs": 3, "learning_rate": 0.5, "metric.learning_rate": 0.01}
    assert (float(row["score"]), float(row["metric.score"])) == (0.9, 0.2)


def test_the_best_network_can_be_read_back(tmp_path, unrendered):
    trials = [make_trial(0, 0.8), make_trial(1, 0.9), make_trial(2, 0.9)]  # of equals the cheaper
    write.write_search_report(tmp_path, make_results(*trials))
    assert read_spec(tmp_path / "best" / "spec.json") == trials[1].spec
    assert read_recipe(tmp_path / "best" / "recipe.json") == trials[1].recipe
    write.write_search_report(tmp_path, make_results(*trials, direction="min"))
    assert read_spec(tmp_path / "best" / "spec.json") == PAPER


def test_without_a_completed_trial_no_best_network_stays(tmp_path, unrendered):
    write.write_search_report(tmp_path, make_results(make_trial(0, 0.8)))
    write.write_search_report(tmp_path, make_results(make_trial(0, None)))
    assert not (tmp_path / "best").exists()
    write.write_search_report(tmp_path, make_results(make_trial(0, 0.8)))
    (tmp_path / "best" / "mine.txt").touch()
    write.write_search_report(tmp_path, make_results())
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["mine.txt"]


def test_what_cannot_be_written_leaves_the_old_table(tmp_path, unrendered):
    write.write_search_report(tmp_path, make_results(make_trial(0, 0.8)))
    before = (tmp_path / "trials.csv").read_bytes()
    with pytest.raises(AttributeError):
        write.write_search_report(tmp_path, make_results(make_trial(0, 0.8), make_trial(1, None, message=None)))
    assert (tmp_path / "trials.csv").read_bytes() == before
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]


TEXTS = [
    make_trial(n, 0.5 + n / 10, {"1x1": 0.1 * n, "schedule": "cosine" if n % 2 else "$x$ $\\bad"}) for n in range(6)
]
CASES = {
    "no trial": [],
    "only failed": [make_trial(0, None, message="a"), make_trial(1, None)],
    "only running": [make_trial(0, None, status=RUNNING)],
    "one": [make_trial(0, 0.5)],
    "first failed": [make_trial(0, None), make_trial(1, 0.5), make_trial(2, 0.6)],
    "no trial 0": [make_trial(1, 0.5), make_trial(2, 0.6)],
    "equal scores": [make_trial(n, 0.5) for n in range(10)],
    "no number": [make_trial(0, 0.5), make_trial(1, float("nan")), make_trial(2, float("inf")), make_trial(3, 0.4)],
    "texts": TEXTS,
    "a dimension of some": [*TEXTS, *(make_trial(n, 0.5 + n / 20, {"1x1": 0.3}) for n in range(6, 12))],
    "no dimensions": [dataclasses.replace(make_trial(n, 0.5 + n / 10), values={}) for n in range(5)],
    "54 dimensions": make_trials(6, 54, ["d3"]),
    "costs nothing": [make_trial(0, 0.5, macs=0), make_trial(1, 0.6, macs=0)],
    "a surrogate": [make_trial(0, 0.5), make_trial(1, None, message="no file \udcff")],
}


@pytest.mark.parametrize(("case", "direction"), [*((case, "max") for case in CASES), ("no number", "min")])
def test_every_search_can_be_written(tmp_path, case, direction):
    found = make_results(*CASES[case], direction=direction)
    write.write_search_report(tmp_path, found)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted([*FIGURES, "report.html"])
    for name in FIGURES:
        Image.open(tmp_path / "report" / name).verify()
    assert len(read(tmp_path / "trials.csv")) == len(found.trials)
    assert (tmp_path / "best").exists() == bool(found.ranked)
    rendered(best_table(found))


def test_five_hundred_trials_are_written_quickly(tmp_path):
    began = time.process_time()  # which other processes do not lengthen
    write.write_search_report(tmp_path, make_results(*make_trials(500, 4, ["d0"], noise=0.02)))
    assert time.process_time() - began < 40  # about 2 seconds on a free core; 54 dimensions: 5


def test_hparams_can_be_read_from_the_event_file(tmp_path):
    values = {"1x1": 0.5, "depth": 3, "schedule": "cosine"}
    for score in (0.1, 0.75):  # the second call replaces what the first wrote
        write.hparams(tmp_path / "logs", make_trial(2, score, values, macs=7_000_000_000))
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if not tag.startswith("_hparams_")]
    scalars = {tag: [tf.make_ndarray(e.tensor_proto).item() for e in events.Tensors(tag)] for tag in tags}
    assert scalars["score"] == [pytest.approx(0.75)]
    assert scalars["val_main_accuracy"] == [pytest.approx(0.75)]
    assert scalars["macs"] == [pytest.approx(7e9)]
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.group_name == "trial 2"
    found = {name: value.string_value or value.number_value for name, value in start.hparams.items()}
    assert found == values
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_hparams_of_a_failed_trial_have_no_score(tmp_path):
    write.hparams(tmp_path, make_trial(0, None))
    assert "score" not in EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]

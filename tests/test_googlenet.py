"""The command line, as a user runs it."""

import csv
import dataclasses
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import googlenet
from inception_v1 import Spec, cost
from inception_v1.atomic_files import write_json
from inception_v1.spec import read_spec
from tests.helpers import ROOT
from tests.helpers.images import make_folder
from tests.helpers.runs import NAIVE, save_run
from training.errors import UserError
from training.presets import PRESETS
from training.recipe import Recipe, numeric_fields
from tuning import Budget

pytestmark = pytest.mark.usefixtures("few_blocks")
TINY = ["--width-multiplier", "0.1", "--no-aux", "--epochs", "1", "--warmup-epochs", "0"]
TINY += ["--train-split", "train[:128]"]


def command(*arguments, environment=None):
    """The argv and the environment of `googlenet` in a user's shell, without the settings of these tests: its networks
    have all blocks."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "KERAS_"))}
    return [sys.executable, str(ROOT / "googlenet.py"), *map(str, arguments)], {**clean, **(environment or {})}


def start(*arguments, **streams):
    """Starts a process that Ctrl-C reaches even where the tests themselves run in the background."""
    argv, environment = command(*arguments)
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(argv, env=environment, text=True, preexec_fn=listen, **streams)


def run(*arguments):
    argv, environment = command(*arguments)
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_help_lists_the_commands():
    done = run("--help")
    assert done.returncode == 0
    for name in ("train", "launch", "evaluate", "compare", "predict", "export", "import-weights", "summary"):
        assert name in done.stdout
    assert "--learning-rate" in run("train", "--help").stdout


@pytest.mark.parametrize(("command", "settings"), [("train", Recipe), ("tune", Recipe), ("tune", Budget)])
def test_help_shows_the_range_of_every_number_beside_its_default(command, settings, capsys):
    with pytest.raises(SystemExit):
        googlenet.main([command, "--help"])
    text = re.sub(r"[│\s]", "", capsys.readouterr().out)  # its lines may break within a number
    for name, field in numeric_fields(settings).items():
        allowed = str(field.range).replace(" ", "")
        assert re.search(rf"--{name.replace('_', '-')}[A-Z{{]((?!--).)*\({allowed};default:", text), name


def test_the_recipe_sets_the_defaults_and_flags_override(capsys):
    with pytest.raises(SystemExit):
        googlenet.main(["train", "--recipe", "fashion", "--help"])
    text = capsys.readouterr().out
    assert re.search(r"--source STR.*?\(default:\s+│?\s*fashion_mnist\)|default: fashion_mnist", text, re.S)


def test_weights_choose_the_recipe_for_fine_tuning_and_flags_and_another_recipe_win():
    weights = ["train", "--weights", "net.keras"]
    tuned = dataclasses.replace(PRESETS["fine-tune"], weights="net.keras")
    assert googlenet._parse(weights).settings == tuned
    changed = googlenet._parse([*weights, "--learning-rate", "0.5", "--no-freeze-batch-norm"]).settings
    assert changed == dataclasses.replace(tuned, learning_rate=0.5, freeze_batch_norm=False)
    digits = googlenet._parse([*weights, "--recipe", "digits"]).settings
    assert digits == dataclasses.replace(PRESETS["digits"], weights="net.keras")


@pytest.mark.usefixtures("all_blocks")
def test_train_evaluate_predict_round_trip(tmp_path, data_dir, capsys):
    folder = tmp_path / "run"
    trained = run("train", *TINY, "--data-dir", data_dir, "--out", folder)
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr == ""
    assert "epoch   1/1" in trained.stdout
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["command"].startswith("googlenet train --width-multiplier 0.1")

    assert googlenet.main(["evaluate", str(folder), "--split", "test[:90]", "--json"]) == 0
    evaluated = capsys.readouterr()
    assert json.loads(evaluated.out)["images"] == 90
    assert evaluated.err == ""
    assert googlenet.main(["evaluate", str(folder)]) == 0
    assert f"{metrics['heads']['main']['top1']:.2%}" in capsys.readouterr().out

    from PIL import Image
    from sklearn.datasets import load_digits

    image = str(tmp_path / "digit.png")
    Image.fromarray((load_digits().images[0] * 255 / 16).astype("uint8")).save(image)
    assert googlenet.main(["predict", str(folder), image, "--json", "--top", "3"]) == 0
    assert len(json.loads(capsys.readouterr().out)[image]) == 3
    assert googlenet.main(["predict", str(folder), image]) == 0
    printed = capsys.readouterr()
    assert "probability" in printed.out
    assert printed.err == ""


@pytest.mark.usefixtures("all_blocks")
def test_published_weights_are_imported_and_name_a_photograph(tmp_path, capsys):
    from sklearn import datasets

    from tests.oracles import torchvision

    photograph = str(Path(datasets.__file__).parent / "images" / "china.jpg")
    out = tmp_path / "net.keras"
    assert googlenet.main(["import-weights", str(torchvision.write(tmp_path, legacy=True)), str(out)]) == 0
    assert "torchvision, 1000 classes, heads main, aux1, aux2, pixels signed" in capsys.readouterr().out
    assert googlenet.main(["predict", str(out), photograph, "--json"]) == 0
    best = json.loads(capsys.readouterr().out)[photograph]
    assert [p for _, p in best] == sorted((p for _, p in best), reverse=True)
    assert all(name.strip() for name, _ in best)
    assert len({name for name, _ in best}) == 5
    assert googlenet.main(["import-weights", photograph, str(tmp_path / "other.keras")]) == 2
    assert "china.jpg" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"net.keras", "googlenet-legacy.pth"}


def test_batches_come_from_other_processes(tmp_path, data_dir):
    """A data service and a second worker, each in its own process, feed a run."""
    from training.train import train

    processes = []
    try:
        processes.append(start("data-service", "--port", "0", stdout=subprocess.PIPE))
        address = processes[0].stdout.readline().split()[-1]
        processes.append(start("data-service", "--port", "0", "--dispatcher", address, stdout=subprocess.PIPE))
        assert processes[1].stdout.readline().split()[-1] == address
        changes = {"epochs": 1, "warmup_epochs": 0, "test_split": "test[:9]"}
        recipe = dataclasses.replace(PRESETS["digits"], data_dir=data_dir, **changes)
        assert train(recipe, tmp_path / "run", spec=read_spec(NAIVE), data_service=address)["status"] == "finished"
        with pytest.raises(ValueError, match="no data service in deterministic mode"):
            train(dataclasses.replace(recipe, deterministic=True), tmp_path / "other", data_service=address)
        for process in processes:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--recipe", "digit"], "recipe='digit'. Did you mean 'digits'?"),
        (["train", "--variant", "papr"], "Did you mean 'paper'?"),
        (["train", "--source", "digitz"], "Nearest: digits"),
        (["train", "--epochs", "0"], "epochs"),
        (["train", "--save-every", "10x"], "Expected save_every to be a time as in 10m"),
        (["train", "--freeze-batch-norm"], "Expected weights with freeze_batch_norm"),
        (["evaluate"], "at least one run"),
        (["evaluate", "/nonexistent"], "Expected the folder of a run"),
        (["evaluate", "/nonexistent", "--predictions", "p.txt"], "ending in .csv or .json; Received: 'p.txt'"),
        (["evaluate", "/nonexistent", "--report", f"{__file__}/report"], "Expected a folder; Received"),
        (["compare", "/nonexistent", "/absent"], "Expected the folder of a run"),
        (["compare", "/nonexistent", "/absent", "--out", "curves.jpg"], "ending in .png"),
        (["predict", "/nonexistent", "a.png", "--top", "0"], "top to be 1 or more; Received: top=0"),
        (["predict", "/nonexistent"], "at least one image"),
        (["predict", "/nonexistent", "a.png", "--out", "p.txt"], "ending in .csv or .json; Received: 'p.txt'"),
        (["predict", "--server", "localhost:8500", "a.png"], "server at grpc://HOST:PORT; Received: 'localhost:8500'"),
        (["export", "/nonexistent"], "Expected the folder of a run"),
        (["export", "/nonexistent", "--to", "onnx,tflite"], "Received: target='tflite'"),
        (["summary", "--variant", "papr"], "Did you mean 'paper'?"),
        (["summary", "--draw", "net.jpg"], "ending in .svg or .png or .pdf"),
    ],
)
def test_a_users_error_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert googlenet.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("googlenet: error: Expected")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]], ids=" ".join)
def test_help_ends_quietly_where_nobody_reads_it(arguments):
    """As in `googlenet --help | head -1`."""
    argv, environment = command(*arguments)
    with subprocess.Popen(argv, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_a_defect_prints_its_traceback_and_a_request_to_report_it(monkeypatch, capsys):
    def fail(command, argv):
        raise ValueError("shapes (2,) and (3,) differ")

    monkeypatch.setitem(googlenet._RUN, googlenet.Summary, fail)
    assert googlenet.main(["summary"]) == 70
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):\n")
    assert f'File "{__file__}"' in error
    assert error.splitlines()[-2] == "ValueError: shapes (2,) and (3,) differ"
    assert error.splitlines()[-1].startswith("googlenet: this is a defect of googlenet-keras; please report it")


def test_a_users_error_inside_a_command_prints_no_traceback(monkeypatch, capsys):
    def refuse(command, argv):
        raise UserError("Expected two; Received: three.")

    monkeypatch.setitem(googlenet._RUN, googlenet.Summary, refuse)
    assert googlenet.main(["summary"]) == 2
    assert capsys.readouterr().err == "googlenet: error: Expected two; Received: three.\n"


@pytest.mark.parametrize(
    ("spelling", "warning"),
    [
        ("normalisation", "googlenet: warning: normalisation is now spelled normalization\n"),
        ("normalization", ""),
    ],
)
def test_the_former_spelling_of_a_setting_is_accepted_with_a_warning(spelling, warning, monkeypatch, capsys):
    commands = []
    monkeypatch.setitem(googlenet._RUN, googlenet.Tune, lambda command, argv: commands.append(command))
    assert googlenet.main(["tune", "--also", "dropout", spelling]) == 0
    assert capsys.readouterr().err == warning
    assert [command.also for command in commands] == [("dropout", "normalization")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    root = tmp_path_factory.mktemp("runs")
    return [str(save_run(root / name, data_dir, test_split="test[:30]", aux=False)) for name in "ab"]


def test_evaluate_prints_the_papers_table_and_writes_the_last_row(runs, tmp_path, capsys):
    predictions, folder = tmp_path / "p.json", tmp_path / "report"
    files = ["--predictions", str(predictions), "--report", str(folder)]
    assert googlenet.main(["evaluate", *runs, "--crops", "1", "10", *files]) == 0
    rows = re.findall(r"│ +(\d) │ +(\d+) │ +(\d+) │ +([\d.]+)% │", capsys.readouterr().out)
    assert [row[:3] for row in rows] == [("1", "1", "1"), ("1", "10", "10"), ("2", "1", "2"), ("2", "10", "20")]
    written = json.loads(predictions.read_text())
    wrong = sum(row["label"] != row["predicted"] for row in written) / len(written)
    assert (len(written), f"{100 * wrong:.2f}") == (30, rows[-1][3])
    assert {path.name for path in folder.iterdir()} == {"confusion.png", "reliability.png", "classes.csv"}


def test_evaluate_prints_json_for_each_row(runs, capsys):
    assert googlenet.main(["evaluate", *runs, "--split", "test[:9]", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["runs"], one["crops"], one["images"]) for one in found] == [(runs[:1], 1, 9), (runs, 1, 9)]


def test_predict_writes_the_classes_of_a_folder_and_names_what_it_could_not_read(runs, tmp_path, capsys, caplog):
    make_folder(tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "0.png").write_bytes(b"")
    found = {}
    for suffix in ("csv", "json"):
        out = tmp_path / f"classes.{suffix}"
        command = ["predict", runs[0], str(tmp_path / "photos"), "--top", "2", "--out", str(out)]
        assert googlenet.main(command) == 1  # as of cat and cp, where a file among several cannot be read
        assert capsys.readouterr().out.strip() == str(out)
        assert caplog.messages == [f"left out: '{tmp_path}/photos/cat/0.png', which is unreadable"]
        caplog.clear()
        found[suffix] = out.read_text()
    rows = list(csv.DictReader(io.StringIO(found["csv"])))
    assert len(rows) == 7
    assert {
        row["file"]: [[row["class"], float(row["probability"])], [row["class_2"], float(row["probability_2"])]]
        for row in rows
    } == json.loads(found["json"])


def test_show_opens_the_page_of_a_run_or_prints_its_path_alone(runs, tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = Path(runs[0], "report", "report.html")
    assert googlenet.main(["show", runs[0], "--no-open"]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert opened == []
    assert googlenet.main(["show", runs[0]]) == 0
    assert opened == [page.as_uri()]
    assert googlenet.main(["show", str(tmp_path)]) == 2
    assert "Expected the folder of a run" in capsys.readouterr().err


def test_compare_prints_a_verdict_and_draws_both_runs(runs, tmp_path, capsys):
    from PIL import Image

    out = tmp_path / "curves.png"
    assert googlenet.main(["compare", *runs, "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], [one["run"] for one in result["runs"]]) == (30, runs)
    Image.open(out).verify()
    out.unlink()
    assert googlenet.main(["compare", *runs, "--out", str(out)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"difference is (not )?significant at 5 % \(McNemar's exact test, p = [\d.e-]+\)", text)
    assert "second wrong" in text
    Image.open(out).verify()


def test_augment_writes_a_figure(tmp_path, tmp_path_factory, capsys):
    """Of a source that is prepared first, of which TFDS prints a report."""
    from PIL import Image

    place = tmp_path_factory.mktemp("augment")
    recipe = dataclasses.replace(PRESETS["digits"], data_dir=str(place / "data"))
    write_json(place / "recipe.json", dataclasses.asdict(recipe))
    out = tmp_path / "seen.png"
    flags = ["--recipe", str(place / "recipe.json"), "--rows", "2", "--columns", "3", "--out", str(out)]
    assert googlenet.main(["augment", "digits", *flags]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    Image.open(out).verify()
    assert googlenet.main(["augment", "folder:/nonexistent", "--out", str(tmp_path / "no.png")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["seen.png"]


@pytest.mark.usefixtures("all_blocks")
def test_summary_prints_table_1(capsys):
    assert googlenet.main(["summary"]) == 0
    text = capsys.readouterr().out
    for expected in ("conv1_7x7_s2", "7x7/2", "14x14x528", "13,378,280", "6,998,552", "1,582,671,872"):
        assert expected in text
    rows = dict(re.findall(r"│ (inception_\w+) .*?│ +([\d,]+) │ +[\d,]+ │\n", text))
    assert rows == {row.name: f"{row.params:,}" for row in cost(Spec()).rows if row.kind == "inception"}


def test_summary_without_reductions_stands_beside_the_reduced(capsys):
    assert googlenet.main(["summary", "--no-reduction", "--no-aux"]) == 0
    text = capsys.readouterr().out
    naive, reduced = cost(Spec(reduction=False, aux=False)), cost(Spec(aux=False))
    for counted in (naive, reduced):
        assert f"{counted.params:,}" in text
        assert f"{counted.macs:,}" in text
    assert f"{naive.macs / reduced.macs:.1f}x the multiply-accumulates" in text


def test_summary_of_a_spec_file(tmp_path, capsys):
    path = tmp_path / "spec.json"
    spec = Spec(widths={"4d": (8, 16, 24, 32, 40, 48)}, classes=10)
    path.write_text(json.dumps(spec.to_dict()))
    assert googlenet.main(["summary", "--spec", str(path)]) == 0
    assert f"{cost(spec).params:,}" in capsys.readouterr().out
    path.write_text('{"epochs": 3}')
    assert googlenet.main(["summary", "--spec", str(path)]) == 2
    assert f"Expected a spec in '{path}'" in capsys.readouterr().err


def test_summary_draws(tmp_path):
    path = tmp_path / "net.svg"
    assert googlenet.main(["summary", "--draw", str(path)]) == 0
    assert path.read_text().lstrip().startswith("<?xml")
    assert [p.name for p in tmp_path.iterdir()] == ["net.svg"]

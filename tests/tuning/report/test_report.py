import csv
import dataclasses
import html.parser
import json
import re
import shlex
import time
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from inception_v1 import Spec, cost
from inception_v1.spec import BLOCKS, Widths, read_spec
from training import recipe as recipes
from training.recipe import Recipe
from tuning.importance import importance
from tuning.reading import front, last_line, worst_shown
from tuning.report import figures as pictures
from tuning.report import write as report
from tuning.results import COMPLETED, FAILED, RUNNING, Results, Trial

PAPER = Spec("batchnorm", (32, 32, 1), 10, width_multiplier=0.5)
HOSTILE = "<script>alert('x')</script> & \"quoted\""
PICTURES = ["history.png", "importance.png", "parallel.png", "pareto.png", "widths.png"]


def trial(number, score, values=None, status=None, macs=None, **fields):
    """A trial whose block 3a is `number` channels wider than the paper's."""
    widths = {"3a": Widths(*(channels + number for channels in PAPER.block_widths()["3a"]))}
    spec = PAPER if number == 0 else dataclasses.replace(PAPER, widths=widths)
    counted = cost(spec).without_aux()
    known = {
        "spec": spec,
        "recipe": Recipe(learning_rate=0.1 + number),
        "params": counted.params,
        "macs": counted.macs if macs is None else macs,
        "metrics": {} if score is None else {"epoch": 7.0, "val_main_accuracy": score},
        "epochs": 8,
        "seconds": 12.5,
        "message": "",
    }
    status = status or (FAILED if score is None else COMPLETED)
    return Trial(number, status, values or {"1x1": 1.0 + number}, score=score, **known | fields)


def results(*trials, direction="max", settings=None):
    return Results(settings or {"recipe": "digits"}, "val_main_accuracy", direction, trials)


def many(count, dimensions, matters=(), noise=0.0, seed=0, **fields):
    """Completed trials whose score is the sum of some dimensions."""
    rng = np.random.default_rng(seed)
    values = [{f"d{n}": float(v) for n, v in enumerate(row)} for row in rng.uniform(0.25, 1.5, (count, dimensions))]
    scores = [0.5 + 0.1 * sum(v[name] for name in matters) + noise * rng.normal() for v in values]
    return [trial(n, score, v, spec=PAPER, **fields) for n, (score, v) in enumerate(zip(scores, values))]


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Stands in for `conftest`'s: there is no network here to clear away, which takes a third of a second a test."""


@pytest.fixture
def unpainted(monkeypatch):
    """Pictures are not painted, which takes most of the time."""
    monkeypatch.setattr(report, "save", lambda figure, path: path.write_bytes(b"picture"))


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_every_number_of_every_trial(tmp_path, unpainted):
    done = trial(0, 0.9, {"1x1": 1.0, "schedule": "cosine"}, metrics={"val_loss": 1 / 3, "learning_rate": 1e-3})
    failed = trial(3, None, {"1x1": 0.5}, message='Traceback:\n  a line\nValueError: no, "no"\n\n', epochs=0)
    report.write(tmp_path, results(done, failed))
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


def test_columns_of_one_name_can_be_told_apart(tmp_path, unpainted):
    values = {"epochs": 3, "learning_rate": 0.5}
    report.write(tmp_path, results(trial(0, 0.9, values, metrics={"learning_rate": 0.01, "score": 0.2})))
    (row,) = read(tmp_path / "trials.csv")
    found = {name: float(row[name]) for name in ("epochs", "value.epochs", "learning_rate", "metric.learning_rate")}
    assert found == {"epochs": 8, "value.epochs": 3, "learning_rate": 0.5, "metric.learning_rate": 0.01}
    assert (float(row["score"]), float(row["metric.score"])) == (0.9, 0.2)


def test_the_best_network_can_be_read_back(tmp_path, unpainted):
    trials = [trial(0, 0.8), trial(1, 0.9), trial(2, 0.9)]  # of equals the cheaper
    report.write(tmp_path, results(*trials))
    assert read_spec(tmp_path / "best" / "spec.json") == trials[1].spec
    assert recipes.read(tmp_path / "best" / "recipe.json") == trials[1].recipe
    report.write(tmp_path, results(*trials, direction="min"))
    assert read_spec(tmp_path / "best" / "spec.json") == PAPER


def test_without_a_completed_trial_no_best_network_stays(tmp_path, unpainted):
    report.write(tmp_path, results(trial(0, 0.8)))
    report.write(tmp_path, results(trial(0, None)))
    assert not (tmp_path / "best").exists()
    report.write(tmp_path, results(trial(0, 0.8)))
    (tmp_path / "best" / "mine.txt").touch()
    report.write(tmp_path, results())
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["mine.txt"]


def test_what_cannot_be_written_leaves_the_old_table(tmp_path, unpainted):
    report.write(tmp_path, results(trial(0, 0.8)))
    before = (tmp_path / "trials.csv").read_bytes()
    with pytest.raises(AttributeError):
        report.write(tmp_path, results(trial(0, 0.8), trial(1, None, message=None)))
    assert (tmp_path / "trials.csv").read_bytes() == before
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]


TEXTS = [trial(n, 0.5 + n / 10, {"1x1": 0.1 * n, "schedule": "cosine" if n % 2 else "$x$ $\\bad"}) for n in range(6)]
CASES = {
    "no trial": [],
    "only failed": [trial(0, None, message="a"), trial(1, None)],
    "only running": [trial(0, None, status=RUNNING)],
    "one": [trial(0, 0.5)],
    "first failed": [trial(0, None), trial(1, 0.5), trial(2, 0.6)],
    "no trial 0": [trial(1, 0.5), trial(2, 0.6)],
    "equal scores": [trial(n, 0.5) for n in range(10)],
    "no number": [trial(0, 0.5), trial(1, float("nan")), trial(2, float("inf")), trial(3, 0.4)],
    "texts": TEXTS,
    "a dimension of some": [*TEXTS, *(trial(n, 0.5 + n / 20, {"1x1": 0.3}) for n in range(6, 12))],
    "no dimensions": [dataclasses.replace(trial(n, 0.5 + n / 10), values={}) for n in range(5)],
    "54 dimensions": many(6, 54, ["d3"]),
    "costs nothing": [trial(0, 0.5, macs=0), trial(1, 0.6, macs=0)],
    "a surrogate": [trial(0, 0.5), trial(1, None, message="no file \udcff")],
}


@pytest.mark.parametrize(("case", "direction"), [*((case, "max") for case in CASES), ("no number", "min")])
def test_every_search_can_be_written(tmp_path, case, direction):
    found = results(*CASES[case], direction=direction)
    report.write(tmp_path, found)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted([*PICTURES, "report.html"])
    for name in PICTURES:
        Image.open(tmp_path / "report" / name).verify()
    assert len(read(tmp_path / "trials.csv")) == len(found.trials)
    assert (tmp_path / "best").exists() == bool(found.ranked)
    printed(report.table(found))


def test_five_hundred_trials_are_written_soon(tmp_path):
    began = time.monotonic()
    report.write(tmp_path, results(*many(500, 4, ["d0"], noise=0.02)))
    assert time.monotonic() - began < 40  # about 2 seconds on a free core; 54 dimensions: 5


def test_the_front_holds_what_none_beats_at_its_cost():
    costs = {0: (5, 0.7), 1: (1, 0.5), 2: (3, 0.6), 3: (4, 0.6), 4: (2, 0.4), 5: (5, 0.8), 6: (9, 0.8)}
    trials = [trial(n, score, macs=macs) for n, (macs, score) in costs.items()]
    assert [t.number for t in front(results(*trials))] == [1, 2, 5]
    assert [t.number for t in front(results(*trials, direction="min"))] == [1, 4]


def test_pareto_draws_the_front_as_steps_and_names_best_and_paper():
    trials = [trial(0, 0.7, macs=50), trial(1, 0.5, macs=10), trial(2, 0.8, macs=80), trial(3, 0.4, macs=60)]
    (axes,) = pictures.pareto(results(*trials)).axes
    (steps,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert steps.get_xydata()[:-1].tolist() == [[10, 0.5], [50, 0.7], [80, 0.8]]
    assert steps.get_xydata()[-1][1] == 0.8
    names = {text.get_text(): text.xy for text in axes.texts}
    assert names == {"the paper's widths\n0.7000": (50, 0.7), "best (trial 2)\n0.8000": (80, 0.8)}
    (axes,) = pictures.pareto(results(*trials[:2])).axes
    assert [text.get_text() for text in axes.texts] == ["the paper's widths are the best\n0.7000"]


@pytest.mark.parametrize(
    ("direction", "expected"), [("max", [0.5, 0.5, 0.7, 0.7, 0.7]), ("min", [0.5, 0.4, 0.4, 0.4, 0.4])]
)
def test_history_draws_the_best_so_far(direction, expected):
    trials = [trial(0, 0.5), trial(1, 0.4), trial(2, None), trial(3, 0.7), trial(4, 0.6)]
    (axes,) = pictures.history(results(*trials, trial(5, None, status=RUNNING), direction=direction)).axes
    (steps,) = [line for line in axes.lines if line.get_label() == "best so far"]
    assert steps.get_xdata().tolist() == [0, 1, 3, 4, 5]
    assert steps.get_ydata().tolist() == expected
    (failed,) = [line for line in axes.lines if line.get_label() == "failed: 1"]
    assert failed.get_xdata() == [2]


def test_a_trial_that_diverged_does_not_flatten_the_others():
    scores = [0.1, *np.linspace(0.9, 0.95, 9)]
    assert worst_shown(scores, "max") == 0.9
    assert worst_shown([-score for score in scores], "min") == -0.9
    assert worst_shown(scores[:7], "max") == 0.1  # too few to tell
    figure = pictures.history(results(*(trial(n, score) for n, score in enumerate(scores))))
    assert figure.axes[0].get_ylim()[0] > 0.88
    figure = pictures.pareto(results(*(trial(n, score, macs=n + 1) for n, score in enumerate(scores))))
    assert figure.axes[0].get_ylim()[0] > 0.88
    (paper,) = [text for text in figure.axes[0].texts if "the paper's widths" in text.get_text()]
    assert paper.get_text().endswith("0.1000")
    assert paper.xy[1] > figure.axes[0].get_ylim()[0]
    assert "far worse, not to scale: 1, the worst 0.1" in [line.get_label() for line in figure.axes[0].lines]


def lines_of(axes):
    return [path.vertices for path in axes.collections[0].get_paths()]


def test_parallel_coordinates_draw_the_best_last_and_darkest():
    trials = [trial(n, score, {"a": n, "b": 5 - n}) for n, score in enumerate((0.5, 0.9, 0.7))]
    found = results(*trials)
    axes, bar = pictures.parallel(found, importance(found)).axes
    assert [line[:, 1].tolist() for line in lines_of(axes)] == [[0, 1], [1, 0], [0.5, 0.5]]
    (best,) = [line for line in axes.lines if line.get_label() == "best: trial 1, 0.9000"]
    assert best.get_ydata().tolist() == [0.5, 0.5]
    assert best.get_zorder() > axes.collections[0].get_zorder()
    drawn = axes.collections[0]
    luminance = matplotlib.colors.rgb_to_hsv(drawn.to_rgba(drawn.get_array())[:, :3])[:, 2]
    assert luminance[-1] == luminance.min() < luminance[0]
    assert bar.get_ylabel() == "val_main_accuracy"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


def test_parallel_coordinates_keep_the_twelve_most_important_of_many():
    found = results(*many(80, 20, ["d15", "d10"]))
    axes = pictures.parallel(found, importance(found)).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert len(names) == 12
    assert {"d15", "d10"} <= set(names)
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert "the 12 most important of 20 dimensions" in axes.figure.get_suptitle()


def test_axes_follow_their_values():
    log = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    at, ticks = pictures.placed(list(log), log)
    assert at == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert dict((text, where) for where, text in ticks)["0.001"] == pytest.approx(1 / 3)
    even = np.arange(1, 101)
    assert pictures.placed([1, 50, None, 100], even)[0] == pytest.approx([0, 49 / 99, np.nan, 1], nan_ok=True)
    at, ticks = pictures.placed(["b", None, "a"], np.array([]))
    assert at == pytest.approx([0.75, np.nan, 0.25], nan_ok=True)
    assert ticks == [(0.25, "a"), (0.75, "b")]


def test_dimensions_alike_share_a_scale():
    columns = [[0.25, 1.5], [0.3, 1.4, None], [1e-3, 0.1], ["x", "y"], [64, 128]]
    shared = pictures.scales(columns)
    assert [sorted(scale) for scale in shared[:2]] == [[0.25, 0.3, 1.4, 1.5]] * 2
    assert [sorted(scale) for scale in shared[2:]] == [[1e-3, 0.1], [], [64, 128]]


def test_importance_finds_what_matters():
    found = importance(results(*many(40, 4, ["d2"], noise=0.005)))
    assert found.names[0] == "d2"
    assert found.r2 > 0.7
    assert found.doubt == ""
    assert found.means[0] > 0.5 > 0.1 > found.means[1]
    texts = [trial(n, 0.9 if n % 3 else 0.5, {"a": n % 5, "schedule": "abc"[n % 3]}) for n in range(30)]
    assert importance(results(*texts)).names[0] == "schedule"
    wild = many(40, 4, ["d2"], noise=0.005)
    wild[7] = dataclasses.replace(wild[7], score=-50.0)  # one that diverged
    assert importance(results(*wild)).names[0] == "d2"


@pytest.mark.parametrize(
    ("trials", "reason", "modelled"),
    [
        (many(3, 2, ["d0"]), r"Completed trials: 3; a model needs at least 4", False),
        (many(7, 2, ["d0"]), r"7 trials of 2 dimensions are too few \(at least 8\)", True),
        (many(9, 5, ["d0"]), r"9 trials of 5 dimensions are too few \(at least 10\)", True),
        (many(30, 3, noise=0.1), r"no better than their mean", True),
        ([trial(n, 0.5) for n in range(10)], r"All 10 scores are equal", False),
    ],
)
def test_importance_says_when_it_cannot_be_trusted(trials, reason, modelled):
    found = importance(results(*trials))
    assert re.search(reason, found.doubt)
    assert (found.r2 is not None) == modelled
    figure = pictures.importance_bars(found)
    shown = figure.axes[0].get_title() if modelled else figure.axes[0].texts[0].get_text()
    assert not modelled or f"R² {found.r2:.2f}" in shown
    assert re.search(f"(Not to be trusted|cannot be told).*{reason}", shown, re.S)


def test_importance_shows_the_model_s_own_score():
    found = importance(results(*many(20, 3, ["d1"])))
    figure = pictures.importance_bars(found)
    assert figure.axes[0].get_title() == f"random forest on 20 trials, cross-validated R² {found.r2:.2f}"
    assert [bar.get_width() for bar in figure.axes[0].patches] == list(found.means)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(found.names)


def test_widths_stand_beside_the_paper_s():
    best = trial(4, 0.9)
    above, below = pictures.widths(results(trial(0, 0.5), best)).axes
    for axes, columns in ((above, (0, 2, 4, 5)), (below, (1, 3))):
        heights = [[bar.get_height() for bar in container] for container in axes.containers]
        sides = [
            [row[column] for row in spec.block_widths().values()] for spec in (PAPER, best.spec) for column in columns
        ]
        assert heights == sides
        colours = [container[0].get_facecolor()[:3] for container in axes.containers]
        expected = [list(pictures.BRANCH_COLOURS.values())[(0, 1, 1, 2, 2, 3)[column]] for column in columns] * 2
        assert colours == [matplotlib.colors.to_rgb(colour) for colour in expected]
    assert above.containers[3][0].get_y() == 32 + 64 + 16  # block 3a's pool on its three other branches


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the rows of the tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.texts.append(data)
        if self.rows and self.rows[-1] and self.tags[-1][0] in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def written_page(folder, found):
    report.write(folder, found)
    return (folder / "report" / "report.html").read_text("utf-8")


def test_the_page_needs_no_other_file(tmp_path, unpainted):
    text = written_page(tmp_path, results(trial(0, 0.5), trial(1, 0.6)))
    page = Page(text)
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|@import|url\(", re.sub(r'src="data:[^"]*"', "", text))


def test_the_page_sorts_trials_and_compares_the_best(tmp_path, unpainted):
    found = results(trial(0, 0.5), trial(1, 0.6), trial(2, 0.55), trial(3, None, message="out of memory"))
    page = Page(written_page(tmp_path, found))
    table = page.rows.index(["trial", "score", "parameters", "MACs", "to trial 0", "epochs", "seconds", "1x1"])
    assert [row[:2] for row in page.rows[table + 1 : table + 4]] == [["1", "0.6000"], ["2", "0.5500"], ["0", "0.5000"]]
    assert ["score", "0.5000", "0.6000", "+0.1000"] in page.rows
    ratio = f"{found.trials[1].macs / found.trials[0].macs:.3f}x"
    assert ["multiply-accumulates", f"{found.trials[0].macs:,}", f"{found.trials[1].macs:,}", ratio] in page.rows
    assert ["widths of 3a", "32-48-64-8-16-16", "33-49-65-9-17-17", ""] in page.rows
    assert ["3", "out of memory"] in page.rows
    assert ["recipe", "digits"] in page.rows


def test_the_page_shows_hostile_texts_as_texts(tmp_path, unpainted):
    done = trial(0, 0.5, {HOSTILE: HOSTILE})
    failed = trial(1, None, {HOSTILE: HOSTILE}, message=f"first\n{HOSTILE}")
    text = written_page(tmp_path, results(done, failed, settings={HOSTILE: HOSTILE}))
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert [HOSTILE, HOSTILE] in page.rows  # the setting
    assert ["1", HOSTILE] in page.rows
    assert [row[7] for row in page.rows if len(row) == 8] == [HOSTILE, HOSTILE]  # the dimension and its value


def test_the_command_of_the_page_trains_the_winner(tmp_path, unpainted):
    folder = tmp_path / "a folder & more"
    texts = Page(written_page(folder, results(trial(0, 0.5)))).texts
    (command,) = [text for text in texts if text.startswith("googlenet train ")]
    _, _, *flags = shlex.split(command)
    assert flags[::2] == ["--spec", "--recipe"]
    assert read_spec(flags[1]) == PAPER
    assert json.loads(Path(flags[3]).read_text()) == dataclasses.asdict(Recipe(learning_rate=0.1))


def test_hparams_come_back_from_the_event_file(tmp_path):
    values = {"1x1": 0.5, "depth": 3, "schedule": "cosine"}
    for score in (0.1, 0.75):  # written again, the second counts
        report.hparams(tmp_path / "logs", trial(2, score, values, macs=7_000_000_000))
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
    report.hparams(tmp_path, trial(0, None))
    assert "score" not in EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]


def printed(renderable, width=110):
    console = Console(record=True, width=width)
    console.print(renderable)
    return console.export_text()


def cells(text):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]


def test_the_terminal_shows_the_best_trials_and_always_the_first():
    found = results(trial(0, 0.5), *(trial(n, 0.6 + n / 100, {"[b]": n, "1x1": 0.123456}) for n in range(1, 8)))
    rows = cells(printed(report.table(found, top=3)))
    ratio = f"{found.trials[7].macs / found.trials[0].macs:.2f}x"
    assert rows[0] == ["7", "0.6700", "[b]=7  1x1=0.1235", f"{found.trials[7].params:,}", ratio, "12"]
    assert [row[0] for row in rows] == ["7", "6", "5", "0"]
    assert rows[3][4] == "1.00x"
    assert [row[0] for row in cells(printed(report.table(results(trial(0, None), trial(1, 0.5)))))] == ["1", "0"]
    assert [row[0] for row in cells(printed(report.table(results(trial(0, 0.9), trial(1, 0.5)))))] == ["0", "1"]


def test_the_terminal_shortens_many_dimensions():
    rows = cells(printed(report.table(results(*many(3, 54))), width=200))
    assert rows[0][2].endswith("and 49 more")


def test_the_last_line_of_a_message_says_something():
    assert last_line("a\nb: c\n \n") == "b: c"
    assert last_line(" \n") == ""

"""The page of a search as a browser gets it."""

import dataclasses
import json
import shlex
from pathlib import Path

from inception_v1.spec import read_spec
from tests.helpers.pages import HOSTILE, Page, check_self_contained
from tests.helpers.searches import PAPER, make_results, make_trial
from training.recipe import Recipe
from tuning.report import write


def write_page(folder, found):
    write.write_search_report(folder, found)
    return (folder / "report" / "report.html").read_text("utf-8")


def test_the_page_needs_no_other_file(tmp_path, unrendered):
    text = write_page(tmp_path, make_results(make_trial(0, 0.5), make_trial(1, 0.6)))
    assert check_self_contained(text) == 5


def test_the_page_sorts_trials_and_compares_the_best(tmp_path, unrendered):
    found = make_results(
        make_trial(0, 0.5), make_trial(1, 0.6), make_trial(2, 0.55), make_trial(3, None, message="out of memory")
    )
    page = Page(write_page(tmp_path, found))
    table = page.rows.index(["trial", "score", "parameters", "MACs", "to trial 0", "epochs", "seconds", "1x1"])
    assert [row[:2] for row in page.rows[table + 1 : table + 4]] == [["1", "0.6000"], ["2", "0.5500"], ["0", "0.5000"]]
    assert ["score", "0.5000", "0.6000", "+0.1000"] in page.rows
    ratio = f"{found.trials[1].macs / found.trials[0].macs:.3f}x"
    assert ["multiply-accumulates", f"{found.trials[0].macs:,}", f"{found.trials[1].macs:,}", ratio] in page.rows
    assert ["widths of 3a", "32-48-64-8-16-16", "33-49-65-9-17-17", ""] in page.rows
    assert ["3", "out of memory"] in page.rows
    assert ["recipe", "digits"] in page.rows


def test_the_page_shows_hostile_texts_as_texts(tmp_path, unrendered):
    done = make_trial(0, 0.5, {HOSTILE: HOSTILE})
    failed = make_trial(1, None, {HOSTILE: HOSTILE}, message=f"first\n{HOSTILE}")
    text = write_page(tmp_path, make_results(done, failed, settings={HOSTILE: HOSTILE}))
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert [HOSTILE, HOSTILE] in page.rows  # the setting
    assert ["1", HOSTILE] in page.rows
    assert [row[7] for row in page.rows if len(row) == 8] == [HOSTILE, HOSTILE]  # the dimension and its value


def test_the_command_of_the_page_trains_the_winner(tmp_path, unrendered):
    folder = tmp_path / "a folder & more"
    texts = Page(write_page(folder, make_results(make_trial(0, 0.5)))).texts
    (command,) = [text for text in texts if text.startswith("googlenet train ")]
    _, _, *flags = shlex.split(command)
    assert flags[::2] == ["--spec", "--recipe"]
    assert read_spec(flags[1]) == PAPER
    assert json.loads(Path(flags[3]).read_text()) == dataclasses.asdict(Recipe(learning_rate=0.1))


def test_trials_link_to_their_pages(tmp_path, unrendered):
    for number in (1, 2):
        page = tmp_path / f"trials/trial_0{number}/run/report/report.html"
        page.parent.mkdir(parents=True)
        page.touch()
    page = Page(write_page(tmp_path, make_results(make_trial(0, 0.5), make_trial(1, 0.6), make_trial(2, None))))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert [(tmp_path / "report" / link).resolve().parents[2].name for link in links] == ["trial_01", "trial_02"]
    assert all((tmp_path / "report" / link).is_file() for link in links)

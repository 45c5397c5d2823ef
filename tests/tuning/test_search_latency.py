"""Searches under a budget of milliseconds: which table they use, keep and refuse."""

import csv
import dataclasses

import pytest

from tests.helpers.latency import made_table
from tests.helpers.searches import outcomes, rendered
from tuning import Budget, latency_measurement
from tuning.report.terminal import best_table
from tuning.report.write import write_search_report
from tuning.search_folder import read_search
from tuning.search_latency import LATENCY


@pytest.fixture
def measured(monkeypatch):
    """The networks that tables were measured for, by a formula."""
    found = []

    def measure(spec, **settings):
        found.append(spec)
        return made_table(spec)

    monkeypatch.setattr(latency_measurement, "measure_latency", measure)
    return found


def test_a_search_measures_once_and_keeps_the_table(search, measured, tmp_path):
    free = search("free", tuner="random", budget=Budget(), trials=1).trials[0]
    table = made_table(free.spec)
    bound = 1000 * 0.8 * table.seconds(free.spec)
    common = {"tuner": "evolution", "budget": Budget(max_latency_ms=bound)}
    found = search(trials=4, **common)
    assert len(measured) == 1
    for trial in found.trials:
        assert 1000 * trial.latency <= bound
        assert trial.latency == pytest.approx(table.seconds(trial.spec))
    more = search(trials=8, **common)
    assert len(measured) == 1  # the folder has it
    assert outcomes(more)[:4] == outcomes(found)
    assert outcomes(more) == outcomes(search("given", trials=8, latency=tmp_path / "search" / LATENCY, **common))
    assert read_search(tmp_path / "search") == more
    with pytest.raises(ValueError, match="Expected the latency table that the search began with"):
        search(trials=8, latency=made_table(free.spec, overhead=2e-4), **common)
    with pytest.raises(ValueError, match="Expected the latency table that the search began with"):
        search("free", tuner="random", budget=Budget(), trials=1, latency=table)
    assert len(measured) == 1


def test_bad_input_is_refused_before_a_measurement(search, measured, tmp_path):
    for changes, message in [
        ({"budget": Budget(max_latency_ms=1.0, max_macs=1000.0)}, "Expected a budget"),
        ({"latency": tmp_path / "none.json"}, "Expected a latency table; Received"),
        ({"budget": Budget(max_latency_ms=1.0), "space": "branch"}, "Did you mean 'branches'?"),
    ]:
        with pytest.raises(ValueError, match="Expected") as error:
            search(**changes)
        assert message in str(error.value)
    assert not measured
    with pytest.raises(ValueError, match=r"its smallest network has .* and takes 0\.\d+ ms, that of the start"):
        search(budget=Budget(max_latency_ms=0.01))
    assert not (tmp_path / "search").exists()


@pytest.mark.usefixtures("measured")
def test_reports_show_milliseconds(search, tmp_path, monkeypatch):
    from tuning.report import write

    found = search(tuner="random", budget=Budget(max_latency_ms=1e6), trials=3)
    monkeypatch.setattr(write, "save", lambda figure, path: path.write_bytes(b"figure"))
    write_search_report(tmp_path / "out", found)
    with (tmp_path / "out/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["latency_ms"]) for row in rows] == pytest.approx([1000 * t.latency for t in found.trials])
    page = (tmp_path / "out/report/report.html").read_text("utf-8")
    shown = f"{1000 * found.best.latency:.3g}"
    assert "milliseconds" in page
    assert f">{shown}<" in page
    assert shown in rendered(best_table(found))
    cheap, dear = (dataclasses.replace(found.trials[0], latency=s, number=n, score=s) for n, s in ((1, 0.1), (2, 0.2)))
    assert dataclasses.replace(found, trials=(dear, cheap)).front == [cheap, dear]  # by latency, at equal MACs

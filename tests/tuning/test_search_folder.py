"""The folder of a search: whose it is, and reading what earlier releases wrote."""

import dataclasses
import json
import logging

import pytest

from tests.helpers.searches import outcomes
from training.run_folder import RunFolder
from tuning import Budget
from tuning.search_folder import read_search


def test_the_folder_of_another_search_is_refused_with_the_difference(search, recipe, tmp_path, simulated):
    search(trials=2)
    for changes, message in [
        ({"tuner": "random"}, "a search with tuner 'bayesian', not 'random'."),
        ({"space": "stages"}, "a search with space 'branches', not 'stages'."),
        ({"budget": Budget(keep_macs=0.1)}, "a search with keep_macs 0.05, not 0.1."),
        ({"recipe": dataclasses.replace(recipe, seed=1, epochs=5)}, "a search with epochs 4, not 5, seed 0, not 1."),
    ]:
        with pytest.raises(ValueError, match="Expected a new folder for the search") as error:
            search(**changes)
        assert str(error.value).endswith(message)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"holds no search\.json and is left alone"):
        search("full")
    with pytest.raises(ValueError, match="is a file"):
        search("full/letter.txt")
    with RunFolder(tmp_path / "search").locked(), pytest.raises(ValueError, match="no run is using"):
        search(trials=2)
    assert len(simulated.calls) == 2


def test_a_search_that_spells_normalisation_is_read_with_a_warning(search, tmp_path, caplog):
    """As earlier releases wrote it in `search.json` and in each trial's file."""
    found = search(tuner="random", also=("normalization",))
    assert len({trial.values["normalization"] for trial in found.trials}) > 1
    files = [tmp_path / "search/search.json", *(tmp_path / "search/trials").glob("trial_*/trial.json")]
    assert len(files) == 1 + len(found.trials)
    for file in files:
        text = file.read_text("utf-8")
        assert '"normalization"' in text
        file.write_text(text.replace('"normalization"', '"normalisation"'), "utf-8")
    assert json.loads(files[0].read_text("utf-8"))["settings"]["also"] == ["normalisation"]
    with caplog.at_level(logging.WARNING, "tuning.search_folder"):
        old = read_search(tmp_path / "search")
    assert old == found
    assert outcomes(old) == outcomes(found)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == f"{files[0]} calls normalisation what is now normalization"

import json

import pytest

from tests.helpers.runs import DIGITS
from training.run_folder import RunFolder, read_history
from training.task import recipe_spec


def test_a_run_resumes_with_as_many_replicas_as_before(recipe, tmp_path):
    """A run that does not record how many it had is from when there was only one."""
    run, spec = RunFolder(tmp_path), recipe_spec(recipe, 1, 10)
    run.create(recipe, spec, DIGITS)
    (tmp_path / "state.npz").touch()
    for before, known in ((1, {}), (1, {"replicas": 1}), (2, {"replicas": 2})):
        (tmp_path / "metrics.json").write_text(json.dumps({"status": "interrupted", **known}))
        assert run.check_usable(recipe, spec, False, before)
        with pytest.raises(ValueError, match=f"a run on {before} replicas, not {3 - before}"):
            run.check_usable(recipe, spec, False, 3 - before)


def test_a_run_without_history_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"history\.csv of a run; Received: .*absent"):
        read_history(tmp_path / "absent")

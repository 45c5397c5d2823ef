import contextlib
import itertools
import json
import os
from pathlib import Path

import pytest

from tests.helpers.runs import DIGITS
from tests.helpers.searches import ProcessKilled
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


def test_a_run_killed_in_its_first_moments_starts_again(recipe, tmp_path, monkeypatch):
    """Whichever file it was about to write or remove, where it replaces another run; and in a new folder."""
    run, spec = RunFolder(tmp_path), recipe_spec(recipe, 1, 10)
    (tmp_path / ".recipe.part.json").write_text("{")
    assert run.check_usable(recipe, spec, False, 1) is False
    with run.locked():
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    run.create(recipe, spec, DIGITS)
    for module, name, count in ((os, "replace", 3), (Path, "unlink", 8)):
        real = getattr(module, name)
        for last, moved in itertools.product(range(count), (False, True)):
            for file in ("best.keras", "state.npz", "metrics.json"):
                (tmp_path / file).write_text("{}")
            if moved:  # whichever file the system lists first
                known = (tmp_path / "recipe.json").read_bytes()
                (tmp_path / "recipe.json").unlink()
                (tmp_path / "recipe.json").write_bytes(known)
            calls = itertools.count()

            def die(*arguments, real=real, calls=calls, last=last, **keywords):
                if next(calls) == last:
                    raise ProcessKilled
                return real(*arguments, **keywords)

            with monkeypatch.context() as patch:
                patch.setattr(module, name, die)
                with contextlib.suppress(ProcessKilled):
                    run.create(recipe, spec, DIGITS)
            assert run.check_usable(recipe, spec, True, 1) is False


def test_a_run_without_history_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"history\.csv of a run; Received: .*absent"):
        read_history(tmp_path / "absent")

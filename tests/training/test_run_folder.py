import itertools
import json
import os
import shutil
from pathlib import Path

import pytest

from inception_v1.spec import read_spec
from tests.helpers.runs import DIGITS, save_run
from tests.helpers.searches import ProcessKilled
from training.errors import UserError
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


READERS = {
    "recipe.json": RunFolder.recipe,
    "spec.json": RunFolder.classes,
    "classes.txt": RunFolder.classes,
    "metrics.json": RunFolder.metrics,
    "history.csv": lambda run: read_history(run / "history.csv"),
    "best.keras": RunFolder.model,
}
RESUMED = ("recipe.json", "spec.json", "metrics.json", "best.keras")  # what a run needs to resume


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """An interrupted run."""
    run = RunFolder(save_run(tmp_path_factory.mktemp("whole"), data_dir))
    (run / "state.npz").touch()
    (run / "metrics.json").write_text(json.dumps({"status": "interrupted", "replicas": 1, "best_epoch": 1}))
    return run


def test_whole_files_are_read(whole):
    for read in READERS.values():
        read(whole)


@pytest.mark.parametrize("name", READERS)
def test_missing_and_damaged_files_are_named_and_left_alone(whole, tmp_path, name):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, run.path)
    data, spec = (run / name).read_bytes(), read_spec(run / "spec.json")
    middle = len(data) // 2
    damaged = {  # as a disk that is full or breaks leaves them
        "empty": b"",
        "cut": data[:middle],
        "zeros": data[:middle] + bytes(64) + data[middle + 64 :],
        "no text": b"\xff\xfe" + data,
        "missing": None,
    }
    damaged.pop({"history.csv": "cut", "best.keras": "no text"}.get(name), None)  # cannot be told, does no harm
    for content in damaged.values():
        if content is None:
            (run / name).unlink()
        else:
            (run / name).write_bytes(content)
        before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        readers = [READERS[name]] if content is not None or name != "spec.json" else []
        readers += [lambda run: run.check_usable(run.recipe(), spec, False, 1)] if name in RESUMED else []
        for read in readers:
            with pytest.raises(UserError, match=name.replace(".", "[.]")) as error:
                read(run)
            assert "\n" not in str(error.value)
        assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_a_run_killed_in_its_first_moments_starts_again(recipe, tmp_path, monkeypatch):
    """Whichever file it was about to write or remove, where it replaces another run; and in a new folder."""
    run, spec = RunFolder(tmp_path), recipe_spec(recipe, 1, 10)
    (tmp_path / ".recipe.part.json").write_text("{")
    assert run.check_usable(recipe, spec, False, 1) is False
    with run.locked():
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    run.create(recipe, spec, DIGITS)
    for module, name in ((os, "replace"), (Path, "unlink")):
        real = getattr(module, name)
        for last in range(3):
            for file in ("best.keras", "state.npz", "metrics.json"):
                (tmp_path / file).write_text("{}")
            calls = itertools.count()

            def die(*arguments, real=real, calls=calls, last=last, **keywords):
                if next(calls) == last:
                    raise ProcessKilled
                return real(*arguments, **keywords)

            with monkeypatch.context() as patch:
                patch.setattr(module, name, die)
                with pytest.raises(ProcessKilled):
                    run.create(recipe, spec, DIGITS)
            assert run.check_usable(recipe, spec, True, 1) is False

"""Runs on a folder that changes under them. No network is trained: the folders of the runs are made by hand."""

import dataclasses
import json
import logging

import pytest
from PIL import Image

from inception_v1 import GoogLeNet
from tests.helpers.images import make_folder
from training.data.scan import scan
from training.data.sources import Splits
from training.evaluation.compare import compare
from training.evaluation.evaluate import evaluate
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.run_images import choose_splits, load_splits
from training.task import prepare_task


def begin(folder, recipe):
    """A run as it begins, and its splits as sets of paths."""
    task = prepare_task(recipe, None, 1)
    run = RunFolder(folder)
    task.create(run)
    GoogLeNet(**task.spec.to_dict()).save(run / "best.keras")
    return run, names(task.splits)


def names(splits):
    return {field: set(split.names()) for field, split in splits._asdict().items()}


@pytest.fixture
def images(tmp_path):
    return tmp_path / "images", Recipe(
        source=make_folder(tmp_path / "images", count=30), image_size=32, width_multiplier=0.1, aux=False, stem="small"
    )


def grow(root, count=60):
    for i in range(count):
        Image.new("RGB", (9, 9), (i, 4 * i, 0)).save(root / "cat" / f"new{i}.png")


def test_a_run_is_evaluated_on_its_own_test_images(images, tmp_path, caplog):
    root, recipe = images
    run, before = begin(tmp_path / "run", recipe)
    grow(root)
    removed, changed = sorted(before["test"])[:2]
    Image.new("RGB", (9, 9), (1, 2, 3)).save(changed)
    (root / removed).unlink()
    with caplog.at_level(logging.WARNING):
        assert evaluate(run.path)["images"] == len(before["test"]) - 1
    assert names(load_splits(run)) == before | {"test": before["test"] - {removed}}
    for expected in ("1 images of ", "60 images in ", f"1 test images of {run.path} have changed: cat/"):
        assert expected in caplog.text
    for name in before["test"] - {removed}:
        (root / name).unlink()
    with pytest.raises(ValueError, match="none of its test images"):
        evaluate(run.path)


def test_runs_are_compared_on_images_that_none_of_them_was_trained_on(images, tmp_path):
    root, recipe = images
    old, before = begin(tmp_path / "old", recipe)
    grow(root)
    new, after = begin(tmp_path / "new", dataclasses.replace(recipe, validation_fraction=0.3))
    common = before["test"] & after["test"]
    assert 0 < len(common) < len(after["test"])
    assert compare(old.path, new.path)["images"] == len(common)
    (old / "images.csv").unlink()
    with pytest.raises(ValueError, match=r"Expected images\.csv in .*old.*Name a split"):
        compare(new.path, old.path)


def test_a_network_that_continues_is_not_tested_on_what_it_was_trained_on(images, tmp_path, caplog):
    root, recipe = images
    run, before = begin(tmp_path / "run", recipe)
    grow(root)
    again = dataclasses.replace(recipe, weights=str(run / "best.keras"), validation_fraction=0.3)
    after = names(choose_splits(again))
    for field in Splits._fields:
        assert before[field] <= after[field], field
    assert sum(map(len, after.values())) == 120
    fresh = names(choose_splits(dataclasses.replace(again, weights=None)))
    assert before["train"] & fresh["test"]  # what would be if nobody cared
    own = dataclasses.replace(
        again, train_split="train[40%:]", test_split="train[:20%]", validation_split="train[20%:40%]"
    )
    with caplog.at_level(logging.WARNING):
        assert choose_splits(own).names() == {
            "train": "train[40%:]",
            "validation": "train[20%:40%]",
            "test": "train[:20%]",
        }
    assert "are in other splits than those of the run whose weights" in caplog.text


def test_another_version_of_a_dataset_is_refused(tmp_path, data_dir, caplog):
    recipe = Recipe(
        data_dir=data_dir, image_size=32, width_multiplier=0.1, aux=False, stem="small", test_split="test[:9]"
    )
    run, _ = begin(tmp_path / "run", recipe)
    task = prepare_task(recipe, None, 1)
    about = task.describe_images()
    assert about["dataset"]["name"] == "digits/1.0.0"
    assert about["dataset"]["digests"]["test"] == scan([load_splits(run).test])[0].digest
    write = lambda dataset: (run / "metrics.json").write_text(json.dumps({"dataset": dataset}))  # noqa: E731
    write(about["dataset"])
    with caplog.at_level(logging.WARNING):
        evaluate(run.path)
    assert "are others than those" not in caplog.text
    write(about["dataset"] | {"digests": {"test": "0" * 16}})
    with caplog.at_level(logging.WARNING):
        evaluate(run.path)
    assert "the test images of digits/1.0.0 are others than those of" in caplog.text
    write({"name": "digits/2.0.0", "digests": {}})
    with pytest.raises(ValueError, match=r"'digits:2\.0\.0'\. Dataset digits .* only: 1\.0\.0"):
        evaluate(run.path)

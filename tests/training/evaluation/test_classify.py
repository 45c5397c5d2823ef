import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from training.data import sources
from training.data.pipeline import Batches
from training.evaluation.classify import classify
from training.evaluation.predictor import predict
from training.run_folder import RunFolder


def test_classify_agrees_with_evaluation_and_refuses_bad_files(runs, tmp_path):
    run = RunFolder(runs[0])
    recipe = run.recipe()
    test = sources.load(dataclasses.replace(recipe, test_split="test[:1]")).test
    example = next(iter(test.builder.as_dataset(test.name)))
    path = tmp_path / "digit.png"
    Image.fromarray(example["image"].numpy()[..., 0]).save(path)
    best = classify(run.path, [str(path)], top=3)[str(path)]
    expected = predict(run.model(), Batches(test, recipe).evaluation()).by_head["main"][0]
    assert [name for name, _ in best] == [str(i) for i in np.argsort(-expected)[:3]]
    assert best[0][1] == pytest.approx(expected.max(), abs=1e-5)
    path.write_bytes(b"\xff\xd8\xff")
    for bad, message in ((str(path), "JPEG, PNG"), (str(tmp_path / "absent.png"), "no file")):
        with pytest.raises(ValueError, match=message):
            classify(run.path, [bad])


def test_files_that_cannot_be_read_do_not_lose_the_others(runs, tmp_path, caplog, monkeypatch):
    """Over the bounds of batches."""
    monkeypatch.setattr("training.evaluation.classify.BATCH", 2)
    files = [str(tmp_path / f"{name}.png") for name in ("a", "text", "b", "c", "absent", b"\xff".decode("latin-1"))]
    files.append(str(tmp_path / os.fsdecode(b"\xfe.png")))
    for number in (0, 2, 3, 5, 6):
        Image.fromarray(np.full((9, 9), 40 * number, "uint8")).save(os.fsencode(files[number]), "PNG")
    (tmp_path / "text.png").write_text("<html>")
    found = classify(runs[0], files, top=1)
    assert list(found) == [files[number] for number in (0, 2, 3, 5, 6)]
    (alone,) = classify(runs[0], files[5:6], top=1)[files[5]]
    assert found[files[5]] == [(alone[0], pytest.approx(alone[1]))]
    reasons = {"text": "which is unreadable", "absent": "which is no file"}
    assert [record.getMessage() for record in caplog.records] == [
        f"left out: '{tmp_path}/{name}.png', {reason}" for name, reason in reasons.items()
    ]
    with pytest.raises(ValueError, match=r"text.png', which is unreadable, and 1 other files that are none either"):
        classify(runs[0], [files[1], files[4]])


@pytest.mark.parametrize("top", [0, -3])
def test_classify_names_at_least_one_class(top):
    with pytest.raises(ValueError, match=f"top to be 1 or more; Received: top={top}"):
        classify("run", ["digit.png"], top)
    with pytest.raises(ValueError, match="at least one image"):
        classify("run", [])

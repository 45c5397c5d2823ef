import dataclasses

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


@pytest.mark.parametrize("top", [0, -3])
def test_classify_names_at_least_one_class(top):
    with pytest.raises(ValueError, match=f"top to be 1 or more; Received: top={top}"):
        classify("run", ["digit.png"], top)
    with pytest.raises(ValueError, match="at least one image"):
        classify("run", [])

"""Whether two runs differ, on the same images."""

import typing

from training.evaluation.evaluate import Folder, Track, common_split, predict_split
from training.evaluation.metrics import bootstrap, mcnemar, predicted_classes, score
from training.run_folder import RunFolder

SIGNIFICANCE = 0.05


def compare(first: Folder, second: Folder, split: str | None = None, track: Track = iter) -> dict[str, typing.Any]:
    """Evaluates the best models of two runs on the same images and tests whether their top-1 accuracy differs.

    Args:
        first: folder of a run.
        second: folder of another of the same source, classes and test split.
        split: TFDS split specification; None for the runs' test split.
        track: wraps the dataset of batches, for instance to show progress.

    Returns:
        {"split": ..., "images": count, "runs": [{"run": folder, "heads": as `metrics.score` returns}, ...], "right": as
        `metrics.mcnemar` returns, "difference": {"top1": of the second less the first, "interval": [low, high]}, "p":
        ..., "significant": whether p is below 0.05}.

    Raises:
        UserError, MissingExtraError: as `evaluations` does.
    """
    runs = [RunFolder(first), RunFolder(second)]
    images = common_split(runs, split)
    scored, right = [], []
    for run in runs:
        predictions = predict_split(run, images, 1, track)
        scored.append({"run": str(run.path), "heads": score(predictions)})
        right.append(predicted_classes(predictions.by_head["main"]) == predictions.labels)
    counts, p = mcnemar(*right)
    difference = right[1].astype(int) - right[0]
    return {
        "split": images.name,
        "images": len(difference),
        "runs": scored,
        "right": counts,
        "difference": {"top1": float(difference.mean()), "interval": bootstrap(difference[None])[0].tolist()},
        "p": p,
        "significant": p < SIGNIFICANCE,
    }

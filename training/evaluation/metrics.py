"""What predictions are worth: accuracies, losses, calibration, their intervals, and whether two networks differ."""

import typing
from collections.abc import Sequence

import numpy as np

CALIBRATION_BINS = 15  # as Guo et al. report
RESAMPLES = 1000


class Predictions(typing.NamedTuple):
    """Probabilities of every image of a split, in the source's order.

    Attributes:
        by_head: head to float32 `(images, classes)`.
        labels: int64 `(images,)`.
    """

    by_head: dict[str, np.ndarray]
    labels: np.ndarray


def predicted_classes(probabilities: np.ndarray) -> np.ndarray:
    """The class of the highest probability of each image; -1, no class, where two tie or any is NaN.

    Args:
        probabilities: `(images, classes)`.

    Returns:
        int64 `(images,)`.
    """
    best = probabilities.argmax(axis=1)
    alone = (~(probabilities < probabilities.max(axis=1, keepdims=True))).sum(axis=1) == 1
    return np.where(alone, best, -1)


def score(predictions: Predictions) -> dict[str, dict[str, typing.Any]]:
    """Top-1 and top-5 accuracy, mean cross-entropy and expected calibration error of each head.

    A label that ties for the last place counts as missed. So does an image with a NaN, and it counts as certain and
    wrong in the calibration. The intervals hold 95 % of the means of 1,000 resamples of the images (percentile
    bootstrap, fixed seed). Where every image is right, or none, that is a single point: resampling cannot show what
    never happened.

    Returns:
        {head: {"top1": fraction, "top5": fraction, "loss": nats, "ece": fraction, "intervals": {"top1": [low, high],
        "top5": [low, high], "loss": [low, high]}}}.
    """
    result = {}
    for head, probabilities in predictions.by_head.items():
        each = image_scores(probabilities, predictions.labels)
        names = ("top1", "top5", "loss")
        result[head] = {
            **dict(zip(names, each.mean(axis=1).tolist(), strict=True)),
            "ece": calibration_error(probabilities, predictions.labels),
            "intervals": dict(zip(names, bootstrap(each).tolist(), strict=True)),
        }
    return result


def image_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores of each image: whether its label is in the top 1, in the top 5, and its cross-entropy; float64 `(3,
    images)`.

    Args:
        probabilities: `(images, classes)`.
        labels: `(images,)`.
    """
    own = probabilities[np.arange(len(labels)), labels].astype("float64")
    rank = (~(probabilities < own[:, None])).sum(axis=1)
    loss = -np.log(np.fmax(own, np.finfo("float32").tiny))  # fmax: a NaN is no probability at all
    return np.stack([rank <= 1, rank <= 5, loss])


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over the bins of `calibration`, weighted by their images.

    Source: Guo et al. 2017, arXiv 1706.04599, section 2.
    """
    count, confidence, accuracy = calibration(probabilities, labels)
    return float(np.sum(count * np.abs(accuracy - confidence)) / count.sum())


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often the images of each confidence are right, in 15 equally wide bins that include their upper edges.

    Args:
        probabilities: `(images, classes)`. Images with a NaN count as certain and wrong.
        labels: `(images,)`.

    Returns:
        `(3, 15)`: number of images, mean confidence (that of the best class) and accuracy; zeros in an empty bin.
    """
    confidence = np.nan_to_num(probabilities.max(axis=1).astype("float64"), nan=1.0)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.digitize(confidence, edges[1:-1], right=True)
    count = np.bincount(bins, minlength=CALIBRATION_BINS)
    sums = [
        np.bincount(bins, values, minlength=CALIBRATION_BINS)
        for values in (confidence, predicted_classes(probabilities) == labels)
    ]
    return np.stack([count, *(total / np.maximum(count, 1) for total in sums)])


def bootstrap(values: np.ndarray) -> np.ndarray:
    """95 % percentile bootstrap intervals of means over the images; all rows see the same resamples.

    Args:
        values: `(quantities, images)`.

    Returns:
        `(quantities, 2)`: low and high.
    """
    import scipy.stats  # imported here: it takes half a second, which most commands need not wait for

    images = values.shape[1]
    if images == 1:  # SciPy refuses it; every resample is the image
        return np.repeat(values.astype("float64"), 2, axis=1)
    interval = scipy.stats.bootstrap(
        (values.astype("float64"),),
        np.mean,
        axis=1,
        n_resamples=RESAMPLES,
        batch=max(1, 2**20 // images),  # of resamples at once: about 40 MB
        method="percentile",
        rng=0,
    ).confidence_interval
    return np.stack([interval.low, interval.high], axis=1)


def summarize(predictions: Predictions, classes: Sequence[str]) -> dict[str, typing.Any]:
    """The numbers of a split that `metrics.json` holds.

    Args:
        predictions: of the split.
        classes: names in label order.

    Returns:
        {"images": count, "heads": as `score` returns, "classes": as `by_class` returns}.
    """
    return {
        "images": len(predictions.labels),
        "heads": score(predictions),
        "classes": by_class(predictions, classes),
    }


def by_class(predictions: Predictions, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of the main head by class; a fraction with nothing to divide by is 0.

    Args:
        predictions: of a split.
        classes: names in label order.

    Returns:
        {class: {"precision": fraction, "recall": fraction, "f1": fraction, "images": count}}.
    """
    from sklearn.metrics import precision_recall_fscore_support  # imported here for the reason in `bootstrap`

    columns = precision_recall_fscore_support(
        predictions.labels, predicted_classes(predictions.by_head["main"]), labels=range(len(classes)), zero_division=0
    )
    names = ("precision", "recall", "f1", "images")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {name: dict(zip(names, row, strict=True)) for name, row in zip(classes, rows, strict=True)}


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[dict[str, int], float]:
    """McNemar's exact test: does each of two networks get as many images right that the other misses?

    Args:
        first: bool `(images,)`, where the first network is right.
        second: the same of the second.

    Returns:
        How many images {"both", "first", "second", "neither"} gets right, first and second meaning only that one, and
        the two-sided p-value.

    Source: McNemar 1947, Psychometrika 12; exact form: binomial test on the images that only one gets right.
    """
    import scipy.stats  # imported here for the reason in `bootstrap`

    counts = {
        "both": int(np.sum(first & second)),
        "first": int(np.sum(first & ~second)),
        "second": int(np.sum(~first & second)),
        "neither": int(np.sum(~first & ~second)),
    }
    only_one = counts["first"] + counts["second"]
    return counts, float(scipy.stats.binomtest(counts["first"], only_one).pvalue) if only_one else 1.0

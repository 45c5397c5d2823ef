"""Predictions of a trained network, and what they are worth."""

import dataclasses
import os
import typing
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from inception_v1 import VARIANTS, GoogLeNet
from inception_v1.preprocessing import normalize
from training import pipeline, sources
from training.run import RunFolder

if typing.TYPE_CHECKING:
    import keras


class Predictions(typing.NamedTuple):
    """Probabilities of every image of a split, in the source's order.

    Attributes:
        by_head: head to float32 `(images, classes)`.
        labels: int64 `(images,)`.
    """

    by_head: dict[str, np.ndarray]
    labels: np.ndarray


def predict(model: GoogLeNet, ds: tf.data.Dataset, callbacks: Sequence["keras.callbacks.Callback"] = ()) -> Predictions:
    """Runs every head on every image of a dataset of (images, labels) batches, a partial last batch included."""
    labels = np.concatenate([label.numpy() for label in ds.map(lambda image, label: label)])
    by_head = model.predict(ds, verbose=0, callbacks=list(callbacks))
    return Predictions(by_head, labels)


def score(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Top-1 and top-5 accuracy and mean cross-entropy of each head.

    A label that ties for the last place counts as missed, and so do NaN scores.

    Returns:
        {head: {"top1": share, "top5": share, "loss": nats}}.
    """
    result = {}
    for head, probabilities in predictions.by_head.items():
        own = probabilities[np.arange(len(predictions.labels)), predictions.labels]
        rank = (~(probabilities < own[:, None])).sum(axis=1)
        result[head] = {
            "top1": float(np.mean(rank <= 1)),
            "top5": float(np.mean(rank <= 5)),
            "loss": float(-np.mean(np.log(np.maximum(own, np.finfo("float32").tiny)))),
        }
    return result


def evaluate(folder: str | os.PathLike, split: str | None = None) -> dict[str, typing.Any]:
    """Evaluates the best model of a run.

    Args:
        folder: of the run.
        split: TFDS split specification; None for the run's test split.

    Returns:
        {"split": ..., "images": count, "heads": as `score` returns}.

    Raises:
        ValueError: not a run, no trained model yet, or an unknown split.
    """
    run = RunFolder(folder)
    model, recipe = run.model(), run.recipe()
    if split is not None:
        recipe = dataclasses.replace(recipe, test_split=split)
    builder, splits = sources.load(recipe)
    if sources.class_names(builder) != run.classes():
        raise ValueError(
            f"Expected the classes that {str(folder)!r} was trained on; Received: others from {recipe.source!r}."
        )
    predictions = predict(model, pipeline.batches(builder, splits.test, recipe, training=False))
    return {"split": splits.test, "images": len(predictions.labels), "heads": score(predictions)}


def classify(folder: str | os.PathLike, pictures: Sequence[str], top: int = 5) -> dict[str, list[tuple[str, float]]]:
    """Names the best classes of picture files with the best model of a run.

    Args:
        folder: of the run.
        pictures: paths of JPEG, PNG, GIF, BMP or WebP files.
        top: classes a picture, best first; fewer where the network has fewer.

    Returns:
        {path: [(class name, probability), ...]}.

    Raises:
        ValueError: not a run, no trained model, or a file that is missing or no picture (named).
    """
    run = RunFolder(folder)
    recipe, classes = run.recipe(), run.classes()
    model = run.model()
    size, _, channels = model.spec.input_shape
    images = tf.stack([_read(picture, size, channels) for picture in pictures])
    pixels = VARIANTS[recipe.variant].pixels
    probabilities = model.classifier().predict(normalize(images, pixels), verbose=0)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return {
        picture: [(classes[i], float(row[i])) for i in best]
        for picture, row, best in zip(pictures, probabilities, order, strict=True)
    }


def _read(picture: str, size: int, channels: int) -> tf.Tensor:
    try:
        return pipeline.decode(tf.io.read_file(picture), size, channels)
    except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):
        raise ValueError(f"Expected a picture file; Received: {picture!r}, which is no file.") from None
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"Expected a JPEG, PNG, GIF, BMP or WebP picture; Received: {picture!r}.") from None

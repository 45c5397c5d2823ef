"""Predictions of trained networks, what they are worth, and whether two of them differ."""

import dataclasses
import functools
import os
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.metrics import precision_recall_fscore_support

from inception_v1 import GoogLeNet
from inception_v1.preprocessing import normalize
from inception_v1.spec import check_choice
from training import serving_client as serving
from training import transfer
from training.data import pipeline, sources
from training.data.decoding import decode, decode_whole, resize
from training.recipe import Recipe
from training.run_folder import RunFolder

VIEW_SCALES = {10: (256,), 144: (256, 288, 320, 352)}  # shorter side for a 224 px network
LONGEST_VIEWED = 8  # times the shorter side; 1x1000 pixels would be 256x256000 at the paper's first scale
CALIBRATION_BINS = 15  # as Guo et al. report
RESAMPLES = 1000
SIGNIFICANCE = 0.05

Folder = str | os.PathLike
Track = Callable[[tf.data.Dataset], Iterable]
Answers = Iterable[tuple[dict[str, np.ndarray], np.ndarray]]  # of each batch: probabilities by head, labels


class Predictions(typing.NamedTuple):
    """Probabilities of every image of a split, in the source's order.

    Attributes:
        by_head: head to float32 `(images, classes)`.
        labels: int64 `(images,)`.
    """

    by_head: dict[str, np.ndarray]
    labels: np.ndarray


def predict(model: GoogLeNet, batches: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> Predictions:
    """Runs every head on every image, a partial last batch included.

    Args:
        model: the network. The devices of this process that it was made for share each batch.
        batches: of (images, labels); images `(batch, size, size, channels)`, or `(batch, views, size, size, channels)`
            whose probabilities are averaged over the views.

    Returns:
        The probabilities and labels in order.
    """
    parts = list(answers(model)(batches))
    by_head = {head: np.concatenate([rows[head] for rows, _ in parts]) for head in model.spec.heads}
    return Predictions(by_head, np.concatenate([labels for _, labels in parts]))


def summed(answered: Answers, heads: int) -> np.ndarray:
    """Sums over the images, of which the sums of several parts of a split may be added up.

    Args:
        answered: what a function of `answers` gives for some batches, or for none.
        heads: of the model.

    Returns:
        float64 `(heads, 4)`: images in the top 1, in the top 5, cross-entropy in nats, and the images themselves.
    """
    total = np.zeros((heads, 4))
    for rows, labels in answered:
        scores = [image_scores(probabilities, labels).sum(axis=1) for probabilities in rows.values()]
        total += np.array([[*score, len(labels)] for score in scores])
    return total


def answers(model: GoogLeNet) -> Callable[[Iterable[tuple[tf.Tensor, tf.Tensor]]], Answers]:
    """A function from batches, as `predict` takes them, to what the model says of each with the weights it has then.

    The network is traced once for all calls.
    """
    devices, ready = _forward_jax(model) if keras.backend.backend() == "jax" else _forward_tensorflow(model)

    def over(batches):
        forward, size = ready(), 1
        for images, labels in batches:
            images, count = np.asarray(images), len(labels)
            views_each = images.shape[1] if images.ndim == 5 else 1
            size = max(size, -(-count // devices) * devices)  # a partial batch is filled up: each shape is traced anew
            rows = forward(images[np.arange(size) % count].reshape(-1, *images.shape[-3:]))
            heads = {head: rows[head].reshape(size, views_each, -1)[:count].mean(axis=1) for head in model.spec.heads}
            yield heads, np.asarray(labels)

    return over


def _forward_tensorflow(model):
    """The devices of this process, and what makes a function from images, as many for each, to the heads' answers."""
    # Of a partial, since TensorFlow counts the traces of a plain function over all models and warns of the fifth.
    step = tf.function(functools.partial(model, training=False), reduce_retracing=True)
    strategy = model.distribute_strategy
    devices = len(strategy.experimental_local_results(strategy.run(lambda: tf.constant(0))))

    def run(images):
        shares = np.split(images, devices)
        given = strategy.experimental_distribute_values_from_function(
            lambda place: tf.constant(shares[place.replica_id_in_sync_group % devices])
        )
        rows = strategy.run(step, (given,))
        return {
            head: np.concatenate([share.numpy() for share in strategy.experimental_local_results(shares)])
            for head, shares in rows.items()
        }

    return devices, lambda: run


def _forward_jax(model):
    """As `_forward_tensorflow`; the weights are those of the moment when the function is made."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    mesh = jax.make_mesh((jax.local_device_count(),), ("batch",), devices=jax.local_devices())
    shared, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
    step = jax.jit(lambda weights, images: model.stateless_call(*weights, images, training=False)[0])

    def ready():
        parts = model.trainable_variables, model.non_trainable_variables
        weights = jax.device_put([[np.asarray(v) for v in part] for part in parts], whole)

        def run(images):
            rows = step(weights, jax.device_put(images, shared))
            return {head: np.asarray(values) for head, values in rows.items()}

        return run

    return mesh.size, ready


def views(image: tf.Tensor, size: int, count: int) -> tf.Tensor:
    """The crops that the paper averages over.

    144: the shorter side at 256, 288, 320 and 352 pixels, the left (top), centre and right (bottom) square of each, of
    each square its four corners, its centre and the whole resized. 10: the corners and the centre of the centre square
    at 256. Then the mirror image of each. For networks of another input size than 224 all scales change with it. Of a
    picture longer than 8 times its shorter side only the centre of that length is seen, so that memory is bounded.

    Args:
        image: float32 `(height, width, channels)`.
        size: height and width of the network's input, pixels.
        count: 10 or 144.

    Returns:
        float32 `(count, size, size, channels)`: by scale, by square, by crop; the second half mirrors the first.

    Source: arXiv 1409.4842, section 7; Krizhevsky et al. 2012, section 4.1 for the ten.
    """
    image = _centre_part(image)
    crops = []
    for scale in VIEW_SCALES[count]:
        side = round(scale * size / 224)
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        scaled = tf.cast(tf.round(shape * side / tf.reduce_min(shape)), tf.int32)
        resized, slack = resize(image, scaled), scaled - side  # one of the slacks is zero
        offsets = (slack * 0, slack // 2, slack) if count == 144 else (slack // 2,)
        for offset in offsets:
            square = resized[offset[0] : offset[0] + side, offset[1] : offset[1] + side]
            room = side - size
            places = ((0, 0), (0, room), (room, 0), (room, room), (room // 2, room // 2))
            crops += [square[top : top + size, left : left + size] for top, left in places]
            if count == 144:
                crops.append(resize(square, (size, size)))
    stacked = tf.clip_by_value(tf.stack(crops), 0, 255)
    return tf.ensure_shape(tf.concat([stacked, stacked[:, :, ::-1]], 0), (count, size, size, image.shape[-1]))


def _centre_part(image: tf.Tensor) -> tf.Tensor:
    """The centre of a picture, no longer than `LONGEST_VIEWED` times its shorter side."""
    shape = tf.shape(image)[:2]
    part = tf.minimum(shape, LONGEST_VIEWED * tf.reduce_min(shape))
    top, left = tf.unstack((shape - part) // 2)
    return image[top : top + part[0], left : left + part[1]]


def view_batches(builder, split: str, recipe: Recipe, count: int, skip: Collection[str] = ()) -> tf.data.Dataset:
    """Batches of (float32 `(batch, count, size, size, channels)` normalised, labels) of a split. See `views`."""
    size, channels = recipe.image_size, pipeline.image_channels(builder)
    pixels = pipeline.pixel_convention(recipe)
    ds = pipeline.encoded_pictures(builder, split, skip).map(
        lambda encoded, label: (normalize(views(decode_whole(encoded, channels), size, count), pixels), label),
        pipeline.CORES,
    )
    return ds.batch(max(1, recipe.batch_size // count)).prefetch(1)


def predicted(probabilities: np.ndarray) -> np.ndarray:
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
        {head: {"top1": share, "top5": share, "loss": nats, "ece": share, "intervals": {"top1": [low, high], "top5":
        [low, high], "loss": [low, high]}}}.
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
    """Of each image, whether its label is in the top 1, in the top 5, and its cross-entropy: float64 `(3, images)`.

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
    """How often the images of each confidence are right: of 15 equally wide bins, their upper edge belonging to them.

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
        for values in (confidence, predicted(probabilities) == labels)
    ]
    return np.stack([count, *(total / np.maximum(count, 1) for total in sums)])


def bootstrap(values: np.ndarray) -> np.ndarray:
    """95 % percentile bootstrap intervals of means over the images; all rows see the same resamples.

    Args:
        values: `(quantities, images)`.

    Returns:
        `(quantities, 2)`: low and high.
    """
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


def measured(predictions: Predictions, classes: Sequence[str]) -> dict[str, typing.Any]:
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
    """Precision, recall and F1 of the main head by class; a share that has nothing to divide by is 0.

    Args:
        predictions: of a split.
        classes: names in label order.

    Returns:
        {class: {"precision": share, "recall": share, "f1": share, "images": count}}.
    """
    columns = precision_recall_fscore_support(
        predictions.labels, predicted(predictions.by_head["main"]), labels=range(len(classes)), zero_division=0
    )
    names = ("precision", "recall", "f1", "images")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {name: dict(zip(names, row, strict=True)) for name, row in zip(classes, rows, strict=True)}


class Evaluation(typing.NamedTuple):
    """What one or several models say about a split.

    Attributes:
        runs: folders of the models that were averaged.
        split: TFDS split specification.
        crops: views of each image that were averaged.
        classes: names in label order.
        predictions: their mean, of the heads that all models have.
    """

    runs: list[str]
    split: str
    crops: int
    classes: list[str]
    predictions: Predictions

    def result(self) -> dict[str, typing.Any]:
        """{"runs", "split", "crops", and what `measured` returns}."""
        known = {"runs": self.runs, "split": self.split, "crops": self.crops}
        return known | measured(self.predictions, self.classes)


def evaluations(
    folders: Sequence[Folder], split: str | None = None, crops: Sequence[int] = (1,), track: Track = iter
) -> Iterator[Evaluation]:
    """Evaluates the first run alone and all runs as an ensemble, at each number of crops in turn.

    The ensemble is the paper's: the mean of the softmax over crops and models. One model is in memory at a time, and
    the sum of what they said.

    Args:
        folders: of the runs. Their networks may differ in anything but the classes.
        split: TFDS split specification; None for the runs' test split.
        crops: numbers of views of each image whose probabilities are averaged: 1, 10 or 144 (see `views`).
        track: wraps the dataset of batches, for instance to show progress.

    Yields:
        At each number of crops the first run's evaluation and then, if there are more, that of all.

    Raises:
        ValueError: no run, not a run, no trained model yet, an unknown split, another number of crops, or runs of
            different sources, classes or test splits.

    Source: arXiv 1409.4842, section 7 and Table 3.
    """
    for count in crops:
        check_choice("crops", count, (1, *VIEW_SCALES))
    runs = [RunFolder(folder) for folder in folders]
    builder, split, skip = _common_split(runs, split)
    for count in crops:
        sums: dict[str, np.ndarray] = {}
        for number, run in enumerate(runs, 1):
            by_head, labels = _predictions(run, builder, split, count, skip, track)
            sums = {head: sums[head] + by_head[head] for head in sums if head in by_head} if sums else by_head
            if number in (1, len(runs)):
                mean = Predictions({head: total / number for head, total in sums.items()}, labels)
                yield Evaluation([str(run.path) for run in runs[:number]], split, count, run.classes(), mean)


def evaluate(
    folders: Folder | Sequence[Folder], split: str | None = None, crops: int = 1, track: Track = iter
) -> dict[str, typing.Any]:
    """Evaluates the best model of a run, or the ensemble of several.

    Pictures that cannot be read are left out, as in training.

    Args:
        folders: of the run or runs.
        split: TFDS split specification; None for the runs' test split.
        crops: views of each image whose probabilities are averaged: 1, 10 or 144 (see `views`).
        track: wraps the dataset of batches, for instance to show progress.

    Returns:
        {"runs": folders, "split": ..., "crops": ..., "images": count, "heads": as `score` returns, "classes": as
        `measured` returns}.

    Raises:
        ValueError: as `evaluations` does.
    """
    several = [folders] if isinstance(folders, str | os.PathLike) else folders
    *_, last = evaluations(several, split, (crops,), track)
    return last.result()


def compare(first: Folder, second: Folder, split: str | None = None, track: Track = iter) -> dict[str, typing.Any]:
    """Evaluates the best models of two runs on the same images and tells whether their top-1 differs.

    Args:
        first: folder of a run.
        second: folder of another of the same source, classes and test split.
        split: TFDS split specification; None for the runs' test split.
        track: wraps the dataset of batches, for instance to show progress.

    Returns:
        {"split": ..., "images": count, "runs": [{"run": folder, "heads": as `score` returns}, ...], "right": as
        `mcnemar` returns, "difference": {"top1": of the second less the first, "interval": [low, high]}, "p": ...,
        "significant": whether p is below 0.05}.

    Raises:
        ValueError: as `evaluations` does.
    """
    runs = [RunFolder(first), RunFolder(second)]
    builder, split, skip = _common_split(runs, split)
    scored, right = [], []
    for run in runs:
        predictions = _predictions(run, builder, split, 1, skip, track)
        scored.append({"run": str(run.path), "heads": score(predictions)})
        right.append(predicted(predictions.by_head["main"]) == predictions.labels)
    counts, p = mcnemar(*right)
    difference = right[1].astype(int) - right[0]
    return {
        "split": split,
        "images": len(difference),
        "runs": scored,
        "right": counts,
        "difference": {"top1": float(difference.mean()), "interval": bootstrap(difference[None])[0].tolist()},
        "p": p,
        "significant": p < SIGNIFICANCE,
    }


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[dict[str, int], float]:
    """McNemar's exact test: were the images that only one of two networks gets right shared by tossing a coin?

    Args:
        first: bool `(images,)`, where the first network is right.
        second: the same of the second.

    Returns:
        How many images {"both", "first", "second", "neither"} gets right, first and second meaning only that one, and
        the two-sided p-value.

    Source: McNemar 1947, Psychometrika 12; exact form: binomial test on the images that only one gets right.
    """
    counts = {
        "both": int(np.sum(first & second)),
        "first": int(np.sum(first & ~second)),
        "second": int(np.sum(~first & second)),
        "neither": int(np.sum(~first & ~second)),
    }
    only_one = counts["first"] + counts["second"]
    return counts, float(scipy.stats.binomtest(counts["first"], only_one).pvalue) if only_one else 1.0


def _predictions(run: RunFolder, builder, split: str, crops: int, skip: Collection[str], track: Track) -> Predictions:
    """Of a run's best model on a split of `builder`, averaged over so many crops."""
    recipe = run.recipe()
    if crops == 1:
        ds = pipeline.batches(builder, split, recipe, training=False, skip=skip)
    else:
        ds = view_batches(builder, split, recipe, crops, skip)
    return predict(run.model(), track(ds))


def _common_split(
    runs: Sequence[RunFolder], split: str | None
) -> tuple[tfds.core.DatasetBuilder, str, Collection[str]]:
    """The source of all runs, their test split or `split`, and what is unreadable there.

    Raises:
        ValueError: the runs do not agree on it.
    """
    if not runs:
        raise ValueError("Expected at least one run; Received: none.")
    for run in runs:
        run.check_trained()
    recipes = [run.recipe() if split is None else dataclasses.replace(run.recipe(), test_split=split) for run in runs]
    _check_same("source", runs, [recipe.source for recipe in recipes])
    _check_same("classes", runs, [run.classes() for run in runs])
    builder, _ = sources.load(recipes[0])
    if sources.class_names(builder) != runs[0].classes():
        raise ValueError(
            f"Expected the classes that {str(runs[0].path)!r} was trained on; "
            f"Received: others from {recipes[0].source!r}."
        )
    splits = [sources.load(recipe)[1].test for recipe in recipes]
    _check_same("test split", runs, splits)
    return builder, splits[0], pipeline.unreadable(builder, splits[0])


def _check_same(what: str, runs: Sequence[RunFolder], values: Sequence) -> None:
    for run, value in zip(runs, values, strict=True):
        if value != values[0]:
            theirs, own = (text if len(text) <= 100 else f"{text[:97]}..." for text in (repr(values[0]), repr(value)))
            raise ValueError(
                f"Expected runs of the same {what}; Received: {theirs} in {str(runs[0].path)!r} "
                f"and {own} in {str(run.path)!r}."
            )


def classify(model: Folder, pictures: Sequence[str], top: int = 5) -> dict[str, list[tuple[str, float]]]:
    """Names the best classes of picture files.

    Args:
        model: folder of a run, whose best model answers, or of an export or its versions, whose SavedModel does, or a
            `.keras` file, for instance of `import_weights`.
        pictures: paths of JPEG, PNG, GIF, BMP or WebP files.
        top: classes a picture, best first; fewer where the network has fewer.

    Returns:
        {path: [(class name, probability), ...]}. The names are numbers where the model does not say them.

    Raises:
        ValueError: not a run, no trained model, no picture asked for, `top` below 1, or a file that is missing or no
            picture (named).
    """
    if top < 1:
        raise ValueError(f"Expected top to be 1 or more; Received: top={top}.")
    if not pictures:
        raise ValueError("Expected at least one picture; Received: none.")
    if exported := serving.newest(model):
        return serving.classify(exported, pictures, top)
    if os.path.isfile(model):
        network = transfer.read(model)
        classes = network.spec.class_names or [str(number) for number in range(network.spec.classes)]
    else:
        network, classes = RunFolder(model).model(), RunFolder(model).classes()
    spec = network.spec
    size, channels = spec.input_shape[0] or 224, spec.input_shape[2]
    images = tf.stack([_read(picture, size, channels) for picture in pictures])
    probabilities = network.classifier().predict(normalize(images, spec.pixels), verbose=0)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return {
        picture: [(classes[i], float(row[i])) for i in best]
        for picture, row, best in zip(pictures, probabilities, order, strict=True)
    }


def _read(picture: str, size: int, channels: int) -> tf.Tensor:
    try:
        return decode(tf.io.read_file(picture), size, channels)
    except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):
        raise ValueError(f"Expected a picture file; Received: {picture!r}, which is no file.") from None
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"Expected a JPEG, PNG, GIF, BMP or WebP picture; Received: {picture!r}.") from None

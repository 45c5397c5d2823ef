"""The dataset examples of a run's channels, as files beside their rendered images."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from inception_v1 import GoogLeNet
from inception_v1.atomic_files import write_json
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from interpretability.examples import strip, top_examples
from interpretability.gradients import inference
from interpretability.image_files import image_path, read_image, read_json, strip_path, write_image
from interpretability.network import fixed_size, inference_features
from interpretability.progress import Progress, no_progress
from training.data.decoding import decode
from training.data.split import Split
from training.data.threads import CORES
from training.evaluation.evaluate import common_split
from training.trained_network import TrainedNetwork

EXAMPLES, BATCH = "examples.json", 64
TOP = 3  # classes that a channel serves
TILE = 64  # pixels of an example on the page


def example_images(source: TrainedNetwork, split: str | None) -> Split:
    """The readable images of a run's test split, or of another one. Raises UserError as `evaluate`."""
    assert source.run is not None
    return common_split([source.run], split)


def decoded_images(source: TrainedNetwork, images: Split) -> tf.data.Dataset:
    """(image uint8 `(size, size, channels)`, label), as evaluation sees them before they are normalized."""
    assert source.run is not None
    size, channels = (
        source.model.spec.input_shape[0] or source.run.recipe().image_size,
        source.model.spec.input_shape[2],
    )
    return images.encoded_images().map(lambda encoded, label: (decode(encoded, size, channels), label), CORES)


def write_examples(
    folder: Path, source: TrainedNetwork, layer: str, images: Split, count: int, progress: Progress = no_progress
) -> None:
    """Writes the best examples of every channel of a layer, unless they are there: `examples/0012.png`, and last
    `examples.json`, with {channel: [[image, value, row, column, class], ...]}, {channel: [[class, mean activation],
    ...]} of the three classes with the largest, and what it was made of.

    Raises:
        UserError: a split without images.
    """
    if not images.size:
        raise UserError(f"Expected images in {images.name!r}; Received: none.")
    wanted = {"split": images.name, "count": count, "images": images.size}
    if (there := read_examples(folder)).items() >= wanted.items() and "classes" in there:
        return
    spec, ds = source.model.spec, decoded_images(source, images)
    features = inference_features(source.model, [layer])
    with progress(f"examples of {layer}", math.ceil(images.size / BATCH)) as advance:

        def batches() -> Any:
            for batch in ds.batch(BATCH).prefetch(1):
                yield batch
                advance()

        found = top_examples(features, spec, layer, batches(), count)
    (folder / "examples").mkdir(parents=True, exist_ok=True)
    channels = range(len(found.best_mean))
    for channel in channels:
        write_image(strip_path(folder, channel), strip(found.crops(channel), TILE))
    listed = {
        str(channel): [[*example[:4], source.classes[example.label]] for example in found.of(channel)]
        for channel in channels
    }
    classes = {
        str(channel): [(source.classes[label], mean) for label, mean in found.best_classes(channel, TOP)]
        for channel in channels
    }
    means = {"best_mean": found.best_mean.tolist(), "classes": classes}
    write_json(folder / EXAMPLES, {**wanted, **means, "channels": listed})


def read_examples(folder: Path) -> dict[str, Any]:
    """What `write_examples` wrote; empty where it did not. Raises UserError where the file is damaged."""
    return read_json(folder / EXAMPLES) if (folder / EXAMPLES).is_file() else {}


def share_above_examples(folder: Path, model: GoogLeNet, layer: str, channels: Sequence[int]) -> tuple[int, int] | None:
    """How many channels have a larger mean in their rendered image than in any image of the split, and of how many.

    None where the layer takes one size alone, and the images may have another.
    """
    if fixed_size(model, [layer]):
        return None
    best, activations = read_examples(folder)["best_mean"], inference(inference_features(model, [layer]))
    above = 0
    for start in range(0, len(channels), BATCH):
        part = channels[start : start + BATCH]
        pixels = np.stack([read_image(image_path(folder, channel), model.spec.input_shape[2]) for channel in part])
        maps = activations(normalize(pixels, model.spec.pixels))[layer]
        means = maps.reshape(len(part), -1, maps.shape[-1]).mean(axis=1)
        above += sum(means[row, channel] > best[channel] for row, channel in enumerate(part))
    return int(above), len(channels)

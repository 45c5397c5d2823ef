"""The dataset examples of a run's channels, as files beside their rendered images."""

import math
from collections.abc import Iterator, Sequence
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
from training.data import sources
from training.data.decoding import decode
from training.data.scan import scan, without_unreadable
from training.data.split import Split
from training.data.threads import CORES
from training.evaluation.evaluate import common_split
from training.recipe import Recipe
from training.trained_network import TrainedNetwork

EXAMPLES, BATCH = "examples.json", 64
TOP = 3  # classes that a channel serves
TILE = 64  # pixels of an example on the page
SIZE = 224  # pixels of an image for a network in a file that takes any size


def example_images(source: TrainedNetwork, split: str | None) -> Split:
    """The readable images of a run's test split, or of another one. Raises UserError as `evaluate`."""
    assert source.run is not None
    return common_split([source.run], split)


def source_images(source: TrainedNetwork, images: str | None, split: str | None) -> Split:
    """The readable images of a source, or of the run's own.

    Args:
        source: the network.
        images: such as "folder:PATH" (see `Recipe.source`); None for the run's.
        split: TFDS split; None for the test split.

    Raises:
        UserError: as `sources.load`, or a network in a file and no source.
    """
    if images is None:
        if source.run is None:
            raise UserError("Expected a source of images (--source) for a network in a file; Received: none.")
        return example_images(source, split)
    recipe = Recipe(source=images, test_split=split, data_dir=source.run.recipe().data_dir if source.run else None)
    chosen = sources.load(recipe).test
    (found,) = scan([chosen])
    return without_unreadable(chosen, found)


def decoded_images(source: TrainedNetwork, images: Split) -> tf.data.Dataset:
    """(image uint8 `(size, size, channels)`, label), as evaluation sees them before they are normalized."""
    shape = source.model.spec.input_shape
    size = shape[0] or (source.run.recipe().image_size if source.run else SIZE)
    stored = images.stored_shape
    return images.encoded_images().map(lambda encoded, label: (decode(encoded, size, shape[2], stored), label), CORES)


def pixel_batches(source: TrainedNetwork, images: Split, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(uint8 `(batch, height, width, channels)` at the network's size, labels), in the source's order."""
    return decoded_images(source, images).batch(batch).prefetch(1).as_numpy_iterator()


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
    spec = source.model.spec
    features = inference_features(source.model, [layer])
    with progress(f"examples of {layer}", math.ceil(images.size / BATCH)) as advance:

        def batches() -> Any:
            for batch in pixel_batches(source, images, BATCH):
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

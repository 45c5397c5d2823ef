"""What a dataset of ImageNet's shape costs, for each million of images: python -m benchmarks large_data

Generates, once, a folder of JPEGs with 1,000 classes and about ImageNet's sizes: most of 500 x 375 pixels, the others
from 100 to 2,000, of 100 KB on average. Then it times what comes before the first step (listing the files, the search
for unreadable images, the same from its cache, the first batch, and the first batch of a run that resumes in the middle
of an epoch), and samples the memory of a training of 2,000 steps by the paper's augmentation, with a narrow network, so
that decoding is what it does. 20,000 images (2.2 GB) and about 20 minutes on 2 cores; `--images 200000 --steps 6250`,
an epoch of ten times as many, needs 21 GB and about 70 minutes, of which 45 are spent on making the images.
"""

import dataclasses
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks import results
from benchmarks.results import ResultTable
from benchmarks.rounds import memory_of, sample_memory
from inception_v1.atomic_files import atomic_file, write_json

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NAME = "large_data"
CLASSES = 1000
HELD_OUT = 1  # images of each class in "val" and in "test"
USUAL, USUAL_SHARE = (500, 375), 0.6  # pixels of most images, and how many have them
QUALITY = 92  # of the JPEGs
BATCH, SIZE, WIDTH = 32, 32, 0.1  # of the training
FEWEST_STEPS = 50
SAMPLE = 1.0  # seconds between two samples of the memory
EVERY = 1_000_000  # images that costs are given for


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__)
    parser.add_argument("--images", type=int, default=20_000, help="Training images, at least one for each class.")
    parser.add_argument("--steps", type=int, default=2000, help="Training steps whose memory is sampled.")
    parser.add_argument("--data", type=Path, default=Path("runs/large_data"), help="Folder of such folders.")
    options = parser.parse_args(arguments)
    if options.images < CLASSES or options.images % CLASSES:
        parser.error(f"Expected a multiple of {CLASSES} images; Received: {options.images}.")
    if options.steps < FEWEST_STEPS:
        parser.error(f"Expected {FEWEST_STEPS} steps or more, so that memory can settle; Received: {options.steps}.")
    result = measure(options.data / str(options.images), options.images, options.steps)
    results.save(NAME, result)
    return tables(result)


def measure(folder: Path, images: int, steps: int) -> dict[str, Any]:
    """Seconds of everything before the first step, and the memory of a training, sample by sample."""
    generate(folder, images)
    size = sum(file.stat().st_size for file in folder.rglob("*.jpg"))
    found = {"about": results.about(), "images": images, "bytes": size, "steps": steps}
    return found | {"seconds": time_start(folder)} | sample_training(folder, images, steps)


def generate(folder: Path, images: int) -> None:
    """The images that are not there yet: parts of photographs with noise, so that their files are as large as real ones
    and no two are equal."""
    import sklearn.datasets

    photographs = [Image.fromarray(pixels) for pixels in sklearn.datasets.load_sample_images().images]
    counts = {"train": images // CLASSES, "val": HELD_OUT, "test": HELD_OUT}
    for split, count in counts.items():
        for number, copy in itertools.product(range(CLASSES), range(count)):
            file = folder / split / f"class{number:04d}" / f"{copy:05d}.jpg"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                random = np.random.default_rng([list(counts).index(split), number, copy])
                with atomic_file(file) as part:
                    draw(photographs, random).save(part, "JPEG", quality=QUALITY)


def draw(photographs: Sequence[Image.Image], random: np.random.Generator) -> Image.Image:
    """A part of a photograph, at the size of one of ImageNet's images."""
    width, height = USUAL
    if random.random() > USUAL_SHARE:
        width, height = np.clip(np.exp(random.normal(np.log(420), 0.45, 2)), 100, 2000).astype(int).tolist()
    elif random.random() < 0.3:
        width, height = height, width
    photograph = photographs[int(random.integers(len(photographs)))]
    left, top = (random.uniform(0, side / 2) for side in photograph.size)
    right, bottom = (
        start + side * random.uniform(0.3, 0.5) for start, side in zip((left, top), photograph.size, strict=True)
    )
    part = np.asarray(photograph.resize((width, height), box=(left, top, right, bottom)), "float32")
    noise = random.normal(0, 11, (*part.shape[:2], 1)).astype("float32")
    return Image.fromarray(np.clip(part + noise, 0, 255).astype("uint8"))


def time_start(folder: Path) -> dict[str, float]:
    """Seconds of what a run does before its first step, by what it is."""
    from training.data import disk_cache, scan, sources
    from training.data.pipeline import Batches, Position

    seconds = {}

    def clock(what: str, work: Any) -> Any:
        began = time.perf_counter()
        made = work()
        seconds[what] = time.perf_counter() - began
        return made

    recipe = training_recipe(folder, epochs=2)
    with (
        tempfile.TemporaryDirectory() as cache,
        mock.patch.dict(os.environ, {"KERAS_HOME": cache}),
        mock.patch.object(disk_cache, "FEWEST", 1),
    ):
        splits = clock("files are listed", lambda: sources.load(recipe))
        clock("images are scanned", lambda: scan.scan(splits))
        clock("the scan is read from its cache", lambda: scan.scan(splits))
    batches = Batches(splits.train, recipe)
    middle = Position(0, batches.steps_per_epoch() // 2)
    next(iter(batches.training()))  # which loads what later ones share
    clock("first batch", lambda: next(iter(batches.training())))
    clock("first batch in the middle of an epoch", lambda: next(iter(batches.training(middle))))
    return seconds


def training_recipe(folder: Path, epochs: int) -> Any:
    from training.recipe import Recipe

    return Recipe(
        source=f"folder:{folder.absolute()}",
        variant="batchnorm",
        paper_augment=True,
        aux=False,
        stem="small",
        image_size=SIZE,
        width_multiplier=WIDTH,
        batch_size=BATCH,
        epochs=epochs,
    )


def sample_training(folder: Path, images: int, steps: int) -> dict[str, Any]:
    """Memory of a process that trains, bytes at every sample, and what it took in all."""
    wanted = steps * BATCH
    with tempfile.TemporaryDirectory() as scratch:
        recipe = training_recipe(folder, epochs=max(1, round(wanted / images)))
        write_json(Path(scratch, "recipe.json"), dataclasses.asdict(recipe))
        command = [sys.executable, "-m", "googlenet", "train", "--recipe", str(Path(scratch, "recipe.json"))]
        command += ["--out", str(Path(scratch, "run"))]
        if wanted < images:
            command += ["--train-split", f"train[:{wanted}]"]
        began = time.perf_counter()
        memory = sample_memory(command, memory_of, SAMPLE, KERAS_HOME=scratch)
        return {"memory": memory, "training_seconds": time.perf_counter() - began, "epochs": recipe.epochs}


def growth(memory: Sequence[int]) -> float:
    """By how much the last quarter of the samples exceeds the second one, as a fraction; medians."""
    quarter = len(memory) // 4
    return statistics.median(memory[-quarter:]) / statistics.median(memory[quarter : 2 * quarter]) - 1


def tables(result: dict[str, Any]) -> list[ResultTable]:
    about = f"{results.machine(result['about'], 'tensorflow', 'keras')}, load {result['about']['load']}"
    images, once = result["images"], ("first batch", "first batch in the middle of an epoch")
    read = images + 2 * HELD_OUT * CLASSES  # by the scan and the list
    rows = [
        [what, f"{seconds:.2f}", "" if what in once else f"{seconds * EVERY / read / 60:.1f}"]
        for what, seconds in result["seconds"].items()
    ]
    title = (
        f"{images:,} training JPEGs of {CLASSES:,} classes, {result['bytes'] / read / 1000:.0f} KB on average, before "
        f"the first step; {about}"
    )
    memory = result["memory"]
    training = [
        ["steps", f"{result['epochs'] * (min(images, result['steps'] * BATCH) // BATCH):,}"],
        ["memory at most, GB", f"{max(memory) / 1e9:.2f}"],
        ["last quarter / second quarter, memory", f"{1 + growth(memory):.3f}"],
        ["minutes, with all before and after", f"{result['training_seconds'] / 60:.1f}"],
    ]
    return [
        ResultTable(title, ["what", "seconds", "minutes for a million images"], rows),
        ResultTable(f"Training on them; {results.describe_cores(result['about'])}", ["what", "measured"], training),
    ]

"""Throughput of the paper's augmentation against torchvision's v2 transforms: python -m benchmarks input

JPEGs of 500x375 pixels made from scikit-image's and scikit-learn's photographs go through decoding, the 8-100 % crop,
a random interpolation to 224x224, a horizontal flip, brightness, contrast, saturation and hue in random order, PCA
lighting and normalization. Both run on one core, in alternating rounds; the table gives images per second per core.
"""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import results
from benchmarks.results import ResultTable
from benchmarks.rounds import Make, Work, alternate, median, spread

NAME = "input"
IMAGES, SIZE = 256, 224
GPU_IMAGES_PER_SECOND = 3000
OURS, BASELINE = "this package, `tf.data`", "torchvision v2 on Pillow"


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    return results.run(NAME, __doc__, arguments, 7, measure, tables)


def measure(rounds: int) -> dict[str, Any]:
    """Rates of each pipeline on one core."""
    makers: dict[str, Make] = {OURS: package_pipeline, BASELINE: torchvision_pipeline}
    return {"about": results.about(), "rounds": rounds, "forms": alternate(makers, rounds)}


def tables(result: dict[str, Any]) -> list[ResultTable]:
    rows, baseline = [], result["forms"][BASELINE]
    for name, form in result["forms"].items():
        if form is None:
            rows.append([name, "not installed", "", "", ""])
            continue
        rate = median(form)
        ratio = f"{rate / median(baseline):.2f}" if baseline else ""
        rows.append([name, f"{rate:.0f}", spread(form, 0), ratio, f"{GPU_IMAGES_PER_SECOND / rate:.1f}"])
    about = results.machine(result["about"], "tensorflow", "torchvision")
    title = f"{IMAGES} JPEGs of 500x375 to {SIZE}x{SIZE}, one core, medians of {result['rounds']} rounds; {about}"
    heads = ["pipeline", "images/s/core", "range", "ratio", f"cores for {GPU_IMAGES_PER_SECOND:,} images/s"]
    return [ResultTable(title, heads, rows)]


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """What `--quick` compares: higher is better."""
    own, baseline = result["forms"][OURS], result["forms"][BASELINE]
    return {"input pipeline: images/s, of torchvision's": median(own) / median(baseline)} if baseline else {}


def use_one_core() -> None:
    """Keeps this process on one core; called before any library counts its cores."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def jpegs() -> list[bytes]:
    """Encoded images of about ImageNet's usual size and quality."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), *load_sample_images().images]
    encoded = []
    for number in range(IMAGES):
        image = Image.fromarray(photographs[number % len(photographs)]).resize((500, 375), Image.Resampling.BICUBIC)
        image = image.rotate(number % 7)  # no two files alike
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


def write_folder(folder: Path, copies: int = 1) -> None:
    """Writes `jpegs`, some copies of each, as a folder of two classes. Its test split has all, the others two each."""
    for number, encoded in enumerate(jpegs() * copies):
        for split in ("train", "val", "test") if number < 2 else ("test",):
            place = folder / split / "ab"[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.jpg").write_bytes(encoded)


def package_pipeline() -> Work:
    use_one_core()
    import tensorflow as tf

    from inception_v1.preprocessing import normalize
    from training.data import augment

    def one(data, number):
        return normalize(augment.paper(data, tf.stack([0, tf.cast(number, tf.int32)]), SIZE, channels=3), "torch")

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False  # nothing to tune on one core, and its thread holds up the end of short rounds
    ds = tf.data.Dataset.from_tensor_slices(jpegs()).enumerate().map(lambda n, data: one(data, n)).batch(64)
    ds = ds.with_options(options)
    return lambda: sum(int(batch.shape[0]) for batch in ds)


def transform(size: int) -> Callable[[Any], Any]:
    """torchvision's counterpart of the paper's augmentation: from an image of Pillow to a normalized tensor."""
    import torch
    from torchvision.transforms import InterpolationMode as Mode
    from torchvision.transforms import v2

    # Pillow's box filter is the counterpart of area interpolation.
    modes = (Mode.BILINEAR, Mode.BOX, Mode.NEAREST, Mode.BICUBIC)
    crops = [v2.RandomResizedCrop(size, (0.08, 1.0), (3 / 4, 4 / 3), interpolation=mode) for mode in modes]
    components = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    deviations = 0.1 * torch.tensor([0.2175, 0.0188, 0.0045])
    return v2.Compose(
        [
            v2.RandomChoice(crops),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(32 / 255, 0.5, 0.5, 0.2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            lambda x: (x + (components @ (torch.randn(3) * deviations))[:, None, None]).clip(0, 1),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


def torchvision_pipeline() -> Work:
    use_one_core()
    import torch

    torch.set_num_threads(1)
    one, encoded = transform(SIZE), jpegs()

    def run() -> int:
        batches = [encoded[i : i + 64] for i in range(0, len(encoded), 64)]
        stacked = (torch.stack([one(Image.open(io.BytesIO(d)).convert("RGB")) for d in b]) for b in batches)
        return sum(len(batch) for batch in stacked)

    return run

"""A training step on a CUDA device beside torchvision's: python -m benchmarks gpu

bfloat16, all heads, the same widths, SGD with momentum. This package's `torchvision` variant runs the step that `fit`
runs on Keras' JAX backend in mixed precision; torchvision's network runs with AMP in channels-last, eager and by
`torch.compile`. First they take turns on one batch that stays on the device. Then each is fed with JPEGs of 500x375
pixels through the paper's augmentation, by `training.data.pipeline` and by a DataLoader of torchvision's v2 transforms
with a worker for each core: one after the other, since what both read ahead would disturb the other. The table shows
images per second, the fraction of the matmul peak (the speed of a large matmul on the same device), and the memory of
the device. It needs JAX and PyTorch for CUDA, the rows of real input also TensorFlow; `--device cpu` is for trying the
script at a small size, and stores nothing.
"""

import functools
import importlib.util
import os
import random
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import input_pipeline, results, steps
from benchmarks.results import ResultTable
from benchmarks.rounds import Make, alternate, median
from benchmarks.steps import Batches, Step

NAME = "gpu"
OURS, EAGER, COMPILED = "this package, JAX", "torchvision, eager", "torchvision, torch.compile"
OURS_FED, BASELINE_FED = f"{OURS}, fed by `tf.data`", "{}, fed by a DataLoader"
MATMUL = "matmul"


def main(arguments: Sequence[str] | None = None) -> list[ResultTable]:
    parser = results.parser(NAME, __doc__, rounds=7)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="Device that trains.")
    parser.add_argument("--batch", type=int, default=256, help="Images of a step.")
    parser.add_argument("--size", type=int, default=224, help="Height and width of an image, pixels.")
    parser.add_argument("--steps", type=int, default=32, help="Steps of a round.")
    parser.add_argument("--eager", action="store_true", help="Leave out torch.compile.")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not device_name():
        raise SystemExit("Expected a CUDA device (or --device cpu with a small --batch and --size); Received: none.")
    if not importlib.util.find_spec("tensorflow"):
        os.environ.setdefault("KERAS_BACKEND", "jax")  # of this process, which counts the work
    step = Step(options.batch, options.size, precision="bfloat16", device=options.device, repeats=options.steps)
    result = measure(step, options.rounds, compiled=not options.eager)
    if options.device == "cuda":
        results.save(NAME, result)
    return tables(result)


def measure(step: Step, rounds: int, compiled: bool = True, real_input: bool = True) -> dict[str, Any]:
    """Rates and memory of every form; with `real_input` also of those that are fed with JPEGs."""
    large = 8192 if step.device == "cuda" else 512
    forms: dict[str, Make] = {
        OURS: functools.partial(steps.package_step, step, backend="jax"),
        EAGER: functools.partial(steps.torchvision_step, step, compiled=False),
        **({COMPILED: functools.partial(steps.torchvision_step, step, compiled=True)} if compiled else {}),
        MATMUL: functools.partial(steps.matmul, step.device, step.precision, large, step.repeats),
    }
    baseline = BASELINE_FED.format(COMPILED if compiled else EAGER)
    result: dict[str, Any] = {"about": results.about(), "device": device_name(), "step": step._asdict()}
    result |= {"rounds": rounds, "fed": {}, "forms": alternate(forms, rounds, warmup=2)}
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = (functools.partial(feed, step, Path(folder) / feed.__name__) for feed in (pipeline, loader))
        one_by_one: dict[str, Make] = {
            OURS_FED: functools.partial(steps.package_step, step, "jax", ours),
            baseline: functools.partial(steps.torchvision_step, step, compiled, theirs),
        }
        for name, make in one_by_one.items() if real_input else ():
            result["fed"] |= alternate({name: make}, rounds, warmup=2)
    return result


def tables(result: dict[str, Any]) -> list[ResultTable]:
    step = Step(**result["step"])
    work = steps.flops(step) / step.batch
    matmul = result["forms"][MATMUL]
    peak = 2 * median(matmul) if matmul else None
    rows = []
    for forms in (result["forms"], result["fed"]):
        fastest = steps.fastest_torch(forms)
        for name, form in forms.items():
            if form is None:
                rows.append([name, "not installed", *[""] * 5])
            elif name != MATMUL:
                rows.append(
                    [
                        name,
                        *steps.rate_cells(form, fastest, work / peak if peak else None, digits=1),
                        f"{form['device'] / 1e9:.2f}" if form.get("device") else "",
                        f"{form['first']:.0f}",
                    ]
                )
    if peak:
        rows.append([MATMUL, f"{peak / 1e12:.1f} TFLOP/s", "", "", "100%", "", ""])
    known = result["about"]
    about = f"{result['device'] or 'no GPU'}, {results.machine(known, 'jax', 'keras', 'torch', 'torchvision')}"
    title = (
        f"Training, {step.size} px, batch {step.batch}, {step.precision}, medians of {result['rounds']} rounds; {about}"
    )
    heads = ["form", "images/s", "range", "of the fastest torch", "of the matmul peak", "GB on the device"]
    return [ResultTable(title, [*heads, "first call, s"], rows)]


def device_name() -> str | None:
    """Name of the first CUDA device."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.partition("\n")[0].strip() or None


# Real input, in the contestant's process


def pipeline(step: Step, folder: Path) -> Batches:
    """Batches as training gets them from a folder of images."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the GPU is for JAX
    from training.data import pipeline
    from training.data.image_folder import ImageFolder
    from training.data.split import Split
    from training.recipe import Recipe

    write_images(folder, step.batch)
    recipe = Recipe(variant=step.variant, paper_augment=True, image_size=step.size, batch_size=step.batch, epochs=10**6)
    return pipeline.Batches(Split(ImageFolder(folder), "train"), recipe).training().as_numpy_iterator()


def loader(step: Step, folder: Path) -> Batches:
    """The same by PyTorch and torchvision."""
    from PIL import Image
    from torch.utils.data import DataLoader, IterableDataset

    write_images(folder, step.batch)
    transform, paths = input_pipeline.transform(step.size), list(folder.glob("train/*/*"))

    class Images(IterableDataset):
        def __iter__(self):
            while True:
                for path in random.sample(paths, len(paths)):
                    yield transform(Image.open(path).convert("RGB")), int(path.parent.name)

    pinned = step.device == "cuda"
    return iter(
        DataLoader(Images(), step.batch, num_workers=results.CORES, pin_memory=pinned, multiprocessing_context="fork")
    )


def write_images(folder: Path, batch: int) -> None:
    """Two classes of JPEGs, as many as a batch at least: FOLDER/train/CLASS/NUMBER.jpg."""
    for label in "01":
        (folder / "train" / label).mkdir(parents=True)
    encoded = input_pipeline.jpegs()
    for number in range(max(batch, len(encoded))):
        file = folder / "train" / str(number % 2) / f"{number}.jpg"
        file.write_bytes(encoded[number % len(encoded)])

"""A training step on a CUDA device beside torchvision's: python -m benchmarks gpu

bfloat16, all heads, the same widths, SGD with momentum. This package's `torchvision` variant runs the step that `fit`
runs on Keras' JAX backend in mixed precision; torchvision's network runs with AMP in channels-last, eager and by
`torch.compile`. First on one batch that stays on the device, in turns. Then fed with JPEGs of 500x375 pixels through
the paper's augmentation, by `training.data.pipeline` and by a DataLoader of torchvision's v2 transforms with a worker a
core: one after the other, since what both read ahead would disturb the other. Shown are images per second, the share of
the speed of a large matrix product on the same device, and the device's memory. Needs JAX and PyTorch for CUDA, the
rows of real input also TensorFlow; `--device cpu` is for trying the script at a small size, and stores nothing.
"""

import functools
import importlib.util
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import input_pipeline, results, steps
from benchmarks.results import Shown
from benchmarks.rounds import alternate, median
from benchmarks.steps import Step

NAME = "gpu"
OURS, EAGER, COMPILED = "this package, JAX", "torchvision, eager", "torchvision, torch.compile"
OURS_FED, PEER_FED = f"{OURS}, fed by `tf.data`", "{}, fed by a DataLoader"
MATMUL = "matrix product"


def main(arguments: Sequence[str] | None = None) -> list[Shown]:
    parser = results.parser(NAME, __doc__, rounds=7)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--steps", type=int, default=32, help="of a round")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not card():
        raise SystemExit("Expected a CUDA device (or --device cpu with a small --batch and --size); Received: none.")
    if not importlib.util.find_spec("tensorflow"):
        os.environ.setdefault("KERAS_BACKEND", "jax")  # of this process, which counts the work
    step = Step(options.batch, options.size, precision="bfloat16", device=options.device, repeats=options.steps)
    result = measured(step, options.rounds, compiled=not options.eager)
    if options.device == "cuda":
        results.save(NAME, result)
    return tables(result)


def measured(step: Step, rounds: int, compiled: bool = True, fed: bool = True) -> dict[str, Any]:
    """Rates and memory of every form; with `fed` also those on real input."""
    large = 8192 if step.device == "cuda" else 512
    forms = {
        OURS: functools.partial(steps.ours, step, backend="jax"),
        EAGER: functools.partial(steps.torchvisions, step, compiled=False),
        **({COMPILED: functools.partial(steps.torchvisions, step, compiled=True)} if compiled else {}),
        MATMUL: functools.partial(steps.matmul, step.device, step.precision, large, step.repeats),
    }
    peer = PEER_FED.format(COMPILED if compiled else EAGER)
    result = {"about": results.about(), "card": card(), "step": step._asdict(), "rounds": rounds, "fed": {}}
    result["forms"] = alternate(forms, rounds, warm=2)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = (functools.partial(feed, step, Path(folder) / feed.__name__) for feed in (pipeline, loader))
        one_by_one = {
            OURS_FED: functools.partial(steps.ours, step, "jax", ours),
            peer: functools.partial(steps.torchvisions, step, compiled, theirs),
        }
        for name, make in one_by_one.items() if fed else ():
            result["fed"] |= alternate({name: make}, rounds, warm=2)
    return result


def tables(result: dict[str, Any]) -> list[Shown]:
    step = Step(**result["step"])
    work = steps.flops(step) / step.batch
    product = result["forms"][MATMUL]
    peak = 2 * median(product) if product else None
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
                        *steps.speeds(form, fastest, work / peak if peak else None, digits=1),
                        f"{form['device'] / 1e9:.2f}" if form.get("device") else "",
                        f"{form['first']:.0f}",
                    ]
                )
    if peak:
        rows.append([MATMUL, f"{peak / 1e12:.1f} TFLOP/s", "", "", "100%", "", ""])
    known = result["about"]
    about = f"{result['card'] or 'no card'}, {results.machine(known, 'jax', 'keras', 'torch', 'torchvision')}"
    title = (
        f"Training, {step.size} px, batch {step.batch}, {step.precision}, medians of {result['rounds']} rounds; {about}"
    )
    heads = ["form", "images/s", "range", "of the fastest torch", "of the product's speed", "GB on the device"]
    return [Shown(title, [*heads, "first call, s"], rows)]


def card() -> str | None:
    """Name of the first CUDA device."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.partition("\n")[0].strip() or None


# Real input, in the peer's process


def pipeline(step: Step, folder: Path) -> Iterator[tuple[Any, Any]]:
    """Batches as training gets them from a folder of pictures."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the card is for JAX
    from training.data import sources
    from training.data.pipeline import batches
    from training.recipe import Recipe

    write_pictures(folder, step.batch)
    recipe = Recipe(variant=step.variant, paper_augment=True, image_size=step.size, batch_size=step.batch, epochs=10**6)
    return batches(sources.PictureFolder(folder), "train", recipe, training=True).as_numpy_iterator()


def loader(step: Step, folder: Path) -> Iterator[tuple[Any, Any]]:
    """The same by PyTorch and torchvision."""
    from PIL import Image
    from torch.utils.data import DataLoader, IterableDataset

    write_pictures(folder, step.batch)
    one, paths = input_pipeline.transform(step.size), list(folder.glob("train/*/*"))

    class Pictures(IterableDataset):
        def __iter__(self):
            while True:
                for path in random.sample(paths, len(paths)):
                    yield one(Image.open(path).convert("RGB")), int(path.parent.name)

    pinned = step.device == "cuda"
    return iter(
        DataLoader(Pictures(), step.batch, num_workers=results.CORES, pin_memory=pinned, multiprocessing_context="fork")
    )


def write_pictures(folder: Path, batch: int) -> None:
    """Two classes of JPEGs, as many as a batch at least: FOLDER/train/CLASS/NUMBER.jpg."""
    for label in "01":
        (folder / "train" / label).mkdir(parents=True)
    encoded = input_pipeline.jpegs()
    for number in range(max(batch, len(encoded))):
        file = folder / "train" / str(number % 2) / f"{number}.jpg"
        file.write_bytes(encoded[number % len(encoded)])

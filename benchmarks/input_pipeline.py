"""Throughput of the paper's augmentation against torchvision's v2 transforms: python -m benchmarks.input_pipeline

JPEGs of 500x375 pixels made from scikit-image's and scikit-learn's photographs go through decoding, the 8-100 % crop,
a random interpolation to 224x224, a mirror, brightness, contrast, saturation and hue in random order, PCA lighting and
normalisation. Both run on one core, in alternating rounds; the table gives images per second per core.
"""

import io
import multiprocessing
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before any library counts its cores

from PIL import Image
from rich.console import Console
from rich.table import Table

ROUNDS, IMAGES, SIZE = 7, 256, 224
GPU_IMAGES_PER_SECOND = 3000


def jpegs():
    """Encoded pictures of about ImageNet's usual size and quality."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), *load_sample_images().images]
    encoded = []
    for number in range(IMAGES):
        picture = Image.fromarray(photographs[number % len(photographs)]).resize((500, 375), Image.Resampling.BICUBIC)
        picture = picture.rotate(number % 7)  # no two files alike
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


def ours(encoded):
    import tensorflow as tf

    from inception_v1.preprocessing import normalize
    from training import augment

    def one(data, number):
        return normalize(augment.paper(data, tf.stack([0, tf.cast(number, tf.int32)]), SIZE, channels=3), "torch")

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False  # nothing to tune on one core, and its thread holds up the end of short rounds
    ds = tf.data.Dataset.from_tensor_slices(encoded).enumerate().map(lambda n, data: one(data, n)).batch(64)
    ds = ds.with_options(options)
    return lambda: sum(int(batch.shape[0]) for batch in ds)


def torchvisions(encoded):
    import torch
    from torchvision.transforms import InterpolationMode as Mode
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    # Pillow's box filter is the counterpart of area interpolation.
    modes = (Mode.BILINEAR, Mode.BOX, Mode.NEAREST, Mode.BICUBIC)
    crops = [v2.RandomResizedCrop(SIZE, (0.08, 1.0), (3 / 4, 4 / 3), interpolation=mode) for mode in modes]
    components = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    deviations = 0.1 * torch.tensor([0.2175, 0.0188, 0.0045])
    transform = v2.Compose(
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

    def run():
        batches = [encoded[i : i + 64] for i in range(0, len(encoded), 64)]
        stacked = (torch.stack([transform(Image.open(io.BytesIO(d)).convert("RGB")) for d in b]) for b in batches)
        return sum(len(batch) for batch in stacked)

    return run


def work(make, connection):
    """In a process of its own: TensorFlow and PyTorch do not share one well. Answers each request with a rate."""
    try:
        run = make(jpegs())
    except ImportError:
        connection.send(None)
        return
    run()
    connection.send("ready")
    while connection.recv():
        began = time.perf_counter()
        count = run()
        connection.send(count / (time.perf_counter() - began))


def measure(makers):
    """Rates of each pipeline over rounds that take turns; None for one that is not installed."""
    context = multiprocessing.get_context("spawn")
    connections, rates = {}, {}
    for name, make in makers.items():
        here, there = context.Pipe()
        context.Process(target=work, args=(make, there), daemon=True).start()
        there.close()
        rates[name] = [] if here.recv() else None
        if rates[name] is not None:
            connections[name] = here
    for _ in range(ROUNDS):
        for name, connection in connections.items():
            connection.send(True)
            rates[name].append(connection.recv())
    for connection in connections.values():
        connection.send(False)
    return rates


def main():
    rates = measure({"this package, tf.data": ours, "torchvision v2 on Pillow": torchvisions})
    medians = {name: statistics.median(values) for name, values in rates.items() if values}
    peer = list(medians.values())[-1]
    table = Table(title=f"{IMAGES} JPEGs of 500x375 to {SIZE}x{SIZE}, one core, {ROUNDS} rounds", title_justify="left")
    for title in ("pipeline", "images/s/core", "min-max", "ratio", f"cores for {GPU_IMAGES_PER_SECOND:,} images/s"):
        table.add_column(title, justify="left" if title == "pipeline" else "right")
    for name, values in rates.items():
        if values is None:
            table.add_row(name, "not installed", "", "", "")
            continue
        spread = f"{min(values):.0f}-{max(values):.0f}"
        cores = f"{GPU_IMAGES_PER_SECOND / medians[name]:.1f}"
        table.add_row(name, f"{medians[name]:.0f}", spread, f"{medians[name] / peer:.2f}", cores)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

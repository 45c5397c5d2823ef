"""Makes the figures of README.md and docs/: python docs/scripts/figures.py [NAME ...] (make figures)

Those of runs take their seeds from the recipes, those of measurements their numbers from benchmarks/results/. Without a
name all are made, which takes about half an hour on 2 cores and, for pages, Chromium.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
OURS, THEIRS, PALE = "#e45756", "#4c78a8", "#bab0ac"
SEARCH = "--source digits --space branches --tuner bayesian --trials 12 --keep-macs 0.05 --width-multiplier 0.25"
SEARCH += " --epochs 6"
SHORT = "--epochs 4 --warmup-epochs 1"
FASHION = "--recipe fashion --epochs 4"
PAGE_WIDTH, PAGE_HEIGHT = 1100, 1150


def drawing() -> None:
    """The network."""
    _googlenet("summary", "--draw", ROOT / "docs" / "googlenet.svg")


def first_run() -> None:
    """The curves of `googlenet train` on digits, and the report of a run that ended too early."""
    with tempfile.TemporaryDirectory() as place:
        first, short = Path(place, "first"), Path(place, "short")
        _googlenet("train", "--out", first)
        _googlenet("train", *SHORT.split(), "--out", short)
        shutil.copy(first / "report" / "curves.png", FIGURES / "first_run_curves.png")
        for name in ("curves", "confusion", "reliability", "mistakes"):
            shutil.copy(short / "report" / f"{name}.png", FIGURES / f"short_run_{name}.png")


def augment() -> None:
    """What the paper's augmentation makes of three photographs."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    photographs = {"cat": data.chelsea(), "cup": data.coffee(), "flower": load_sample_image("flower.jpg")}
    with tempfile.TemporaryDirectory() as place:
        for name, pixels in photographs.items():
            folder = Path(place, "photos", "train", name)
            folder.mkdir(parents=True)
            Image.fromarray(pixels).save(folder / "1.jpg")
        for split in ("val", "test"):
            shutil.copytree(Path(place, "photos", "train"), Path(place, "photos", split))
        _googlenet("augment", "folder:photos", "--rows", "3", "--columns", "5", folder=place)
        Image.open(Path(place, "augment.png")).convert("RGB").save(FIGURES / "augment.jpg", quality=85)


def search_report() -> None:
    """The top of the page of a search of about three minutes, as a browser shows it."""
    with tempfile.TemporaryDirectory() as place:
        _googlenet("tune", *SEARCH.split(), "--out", "runs/search", folder=place)
        page = Path(place, "runs", "search", "report", "report.html")
        _screenshot(page.as_uri(), ROOT / "docs" / "search_report.png", PAGE_WIDTH, PAGE_HEIGHT)


def looking_inside() -> None:
    """What a short run on Fashion-MNIST has learnt: channels, an atlas, an explained image, correlated channels."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place, "fashion")
        _googlenet("train", *FASHION.split(), "--out", run)
        look_inside(run, Path(place))


def look_inside(run: Path, place: Path) -> None:
    """The figures of a run that is there, from pages that are made in a folder."""
    from PIL import Image

    from training.run_folder import RunFolder
    from training.run_images import load_splits

    visualized, explained, widths = place / "visualized", place / "explained", place / "widths"
    layer = ["--layer", "inception_4d"]
    _googlenet("visualize", run, *layer, "--per-branch", "4", "--out", visualized)
    _screenshot((visualized / "index.html").as_uri(), FIGURES / "channels.png", PAGE_WIDTH, PAGE_HEIGHT)
    _googlenet("visualize", run, *layer, "--atlas", "--split", "test[:3000]", "--out", visualized)
    _screenshot(
        (visualized / "inception_4d-atlas" / "index.html").as_uri(), FIGURES / "atlas.png", PAGE_WIDTH, PAGE_HEIGHT
    )
    encoded, _ = next(iter(load_splits(RunFolder(run)).test.encoded_images()))
    (place / "image.png").write_bytes(encoded.numpy())
    layers = ["--caricature", "inception_3b", "inception_4d", "--factors", "inception_4b", "--ablation"]
    _googlenet("explain", run, "image.png", *layers, "--out", explained, folder=place)
    _screenshot((explained / "index.html").as_uri(), FIGURES / "explained.png", PAGE_WIDTH, PAGE_HEIGHT)
    _googlenet("widths", run, "--out", widths)
    figure = Image.open(widths / "correlations.png").convert("RGB")
    figure.thumbnail((1500, 1500))
    figure.save(FIGURES / "correlations.jpg", quality=85)


def results() -> None:
    """Speed of training and of inference beside torchvision's, and of what an export costs."""
    train, inference = _stored("train"), _stored("inference")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    forms = ("this package, TensorFlow", "torchvision, eager", "torchvision, torch.compile")
    bars = [
        (f"{form}, batch {batch}", train["batches"][batch][form]["rates"]) for batch in ("16", "32") for form in forms
    ]
    _ranges(left, bars, [OURS if "this package" in name else THEIRS for name, _ in bars])
    left.set_title(f"training, images/s (more is better)\n{train['about']['cpu']}", fontsize=10, loc="left")
    times = inference["ms"]["torchvision"]["1"]
    named = {
        "SavedModel": "SavedModel, predict_images",
        "ONNX, ours": "ONNX, NCHW, onnxruntime",
        "ONNX int8, ours": "ONNX int8, NCHW, onnxruntime",
        "ONNX, torchvision's own": "torchvision's ONNX, onnxruntime",
        "LiteRT float32": "LiteRT float32",
        "LiteRT int8": "LiteRT int8",
    }
    bars = [(name, times[form]) for name, form in named.items()]
    _ranges(right, bars, [THEIRS if "own" in name else OURS for name, _ in bars])
    cpu = inference["about"]["cpu"].replace("(R)", "").replace("Processor ", "")
    right.set_title(f"one image through an export, ms (less is better)\n{cpu}", fontsize=10, loc="left")
    figure.supxlabel(
        f"224 px, float32 unless said; median and range; {train['about']['cores']} cores, no GPU measured", fontsize=8
    )
    _save(figure, "results.svg")


def growth() -> None:
    """Time of a training step against its size."""
    axes_ = _stored("growth")["axes"]
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(axes_)), axes_.items(), strict=True):
        values = [point["value"] for point in points]
        axes.loglog(values, [1000 * statistics.median(point["seconds"]) for point in points], "o-", color=OURS)
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.3, which="both")
        axes.set_xticks(values, [f"{value:,}" for value in values], fontsize=7, rotation=45)
        axes.set_yticks(ticks := [25, 50, 100, 200, 400], [f"{tick}" for tick in ticks])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("ms a training step")
    _save(figure, "growth.svg")


def ablation() -> None:
    """Test top-1 with and without auxiliary heads, by normalization and seed."""
    stored = _stored("ablation")
    names = {"batchnorm": "batch normalization", "paper": "LRN", "plain": "none"}
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    titles = {"digits": "digits", "fashion_mnist": "Fashion-MNIST, 10,000 images"}
    for axes, (source, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for row, variant in enumerate(names):
            for offset, heads, color in ((0.14, "three heads", OURS), (-0.14, "main head", THEIRS)):
                begin = f"{source} {variant} {heads} "
                scores = [100 * value for name, value in stored.items() if name.startswith(begin)]
                label = {"three heads": "with auxiliary heads", "main head": "main head alone"}[heads]
                axes.plot(scores, [row + offset] * len(scores), "o", color=color, alpha=0.7, label="" if row else label)
                axes.plot(statistics.mean(scores), row + offset, "|", color=color, markersize=16, markeredgewidth=2)
        axes.set_yticks(range(len(names)), names.values())
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("test top-1, %")
        axes.grid(alpha=0.3, axis="x")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=2)
    _save(figure, "ablation.svg")


def costs() -> None:
    """Parameters and multiply-accumulates of the paper's network by layer."""
    from inception_v1 import Spec, cost

    rows = [row for row in cost(Spec()).rows if row.params or row.macs]
    names = [row.name.removeprefix("inception_").replace("_s2", "/2").replace("_", " ") for row in rows]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    shown = {"million multiply-accumulates an image": "macs", "million parameters": "params"}
    for axes, (title, field) in zip(figure.subplots(2, 1, sharex=True), shown.items(), strict=True):
        colors = [PALE if "head" in row.kind and row.name != "main" else OURS for row in rows]
        axes.bar(range(len(rows)), [getattr(row, field) / 1e6 for row in rows], color=colors)
        axes.set_title(title, fontsize=10, loc="left")
        axes.grid(alpha=0.3, axis="y")
    axes.set_xticks(range(len(rows)), names, rotation=45, ha="right", fontsize=8)
    _save(figure, "costs.svg")


def windows() -> None:
    """Where the windows of strided layers fall, by rule and size."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    rules: dict[str, Callable[[int], list[tuple[int, int]]]] = {
        "3 + 3 (Caffe, torchvision)": lambda size: _windows(size, 7, 3, (size - 1) // 2 + 1),
        "same (TF-slim, inception5h)": lambda size: _windows(
            size, 7, max((-(-size // 2) - 1) * 2 + 7 - size, 0) // 2, -(-size // 2)
        ),
    }
    pools: dict[str, Callable[[int], list[tuple[int, int]]]] = {
        "ceil (Caffe, torchvision)": lambda size: _windows(size, 3, 0, -(-(size - 3) // 2) + 1),
        "floor (ONNX inception-v1)": lambda size: _windows(size, 3, 0, (size - 3) // 2 + 1),
        "same (TF-slim, inception5h)": lambda size: _windows(
            size, 3, max((-(-size // 2) - 1) * 2 + 3 - size, 0) // 2, -(-size // 2)
        ),
    }
    grid = figure.subplots(2, 2)
    for column, (size, network) in enumerate(((12, "even sizes, as 224"), (13, "odd sizes, as 231"))):
        _draw_windows(grid[0, column], size, rules, f"first convolution 7x7/2, {network}")
        _draw_windows(grid[1, column], size, pools, f"pools 3x3/2, {network}")
    _save(figure, "windows.svg")


def _windows(size: int, kernel: int, before: int, count: int) -> list[tuple[int, int]]:
    """First and last position of each window of stride 2, with `before` positions of padding."""
    return [(2 * i - before, 2 * i - before + kernel - 1) for i in range(count)]


def _draw_windows(axes: Axes, size: int, rules: dict[str, Callable[[int], list[tuple[int, int]]]], title: str) -> None:
    for row, (name, rule) in enumerate(rules.items()):
        axes.text(-4.2, row, name, ha="right", va="center", fontsize=8)
        for position in range(size):
            axes.plot(position, row, "s", color=PALE, markersize=9)
        for number, (first, last) in enumerate(rule(size)):
            height = row - 0.22 - 0.09 * (number % 4)
            axes.plot((first - 0.3, last + 0.3), (height, height), color=f"C{number % 4}", linewidth=2)
    axes.set_xlim(-14, size + 4)
    axes.set_ylim(len(rules) - 0.6, -0.8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_axis_off()


def _ranges(axes: Axes, bars: Sequence[tuple[str, Sequence[float]]], colors: Sequence[str]) -> None:
    """Horizontal bars of medians, with the range on them."""
    for row, ((_, numbers), color) in enumerate(zip(bars, colors, strict=True)):
        median = statistics.median(numbers)
        axes.barh(row, median, color=color, height=0.7)
        axes.plot((min(numbers), max(numbers)), (row, row), color="black", linewidth=1)
        axes.text(max(*numbers, median) * 1.02, row, f"{median:.3g}", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _screenshot(address: str, out: Path, width: int, height: int) -> None:
    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("Expected Chromium, as from `apt-get install chromium`; Received: none.")
    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1"]
    window = f"--window-size={width},{height}"
    subprocess.run([browser, *flags, window, f"--screenshot={out}", address], check=True, capture_output=True)


def _googlenet(*arguments: Any, folder: str | Path = ROOT) -> None:
    command = [sys.executable, str(ROOT / "googlenet.py"), *map(str, arguments)]
    subprocess.run(command, cwd=folder, check=True)


def _stored(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def _save(figure: Figure, name: str) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(FIGURES / name, metadata={"Date": None})


MAKERS = (drawing, first_run, augment, search_report, looking_inside, results, growth, ablation, costs, windows)


def main(names: Sequence[str]) -> None:
    known = {maker.__name__: maker for maker in MAKERS}
    if unknown := sorted(set(names) - known.keys()):
        raise SystemExit(f"Expected names among {', '.join(known)}; Received: {', '.join(unknown)}.")
    FIGURES.mkdir(exist_ok=True)
    for name in names or known:
        known[name]()


if __name__ == "__main__":
    main(sys.argv[1:])

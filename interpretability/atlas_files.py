"""`visualize --atlas`: the files of an activation atlas, and its page."""

import dataclasses
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inception_v1.atomic_files import atomic_file, check_folder, write_json, write_text
from inception_v1.errors import UserError
from interpretability.activation_samples import sample_activations
from interpretability.atlas import BATCH, AtlasSettings, IconRenderer, lay_out
from interpretability.atlas_layout import Cells
from interpretability.example_files import pixel_batches, source_images
from interpretability.image_files import (
    SETTINGS,
    check_settings,
    image_path,
    to_pixels,
    webp_address,
    weights_digest,
    write_image,
)
from interpretability.layer_names import own_name
from interpretability.network import check_layers
from interpretability.progress import Progress, no_progress
from training.data.split import Split
from training.report.page import render
from training.trained_network import TrainedNetwork, read_trained

TEMPLATE = Path(__file__).with_name("atlas.html.jinja")
CELLS, PAGE = "cells.npz", "index.html"
READ = 64  # images whose activations are computed at a time
QUALITY = 80  # of the page's WebP images
TOP, LEGEND = 3, 20  # classes that a cell, and the legend, name
FEW = 12  # classes whose colors can be told apart


def write_atlas(
    source: str | os.PathLike[str],
    layer: str,
    out: Path | None = None,
    settings: AtlasSettings | None = None,
    batch: int = BATCH,
    images: str | None = None,
    split: str | None = None,
    progress: Progress = no_progress,
) -> Path:
    """Writes an activation atlas: `LAYER-atlas/0012.png` for each cell, and a page that needs no other file.

    The same call resumes: cells whose icon is there are not rendered again, nor are the activations computed.

    Args:
        source: folder of a run, or a `.keras` file.
        layer: as of `atlas`, like `settings` and `batch`.
        out: folder for `LAYER-atlas`; None for `visualizations/SOURCE`.
        images: source of the images, such as "folder:PATH"; None for the run's.
        split: TFDS split; None for the test split.
        progress: see `visualize`.

    Returns:
        The page's path.

    Raises:
        UserError: no such network or layer, a file without a source of images, no more images than UMAP's neighbors, a
            folder with an atlas of other weights or settings, or what `atlas` raises.
    """
    network, settings = read_trained(source), settings or AtlasSettings()
    name = own_name(layer)
    check_layers(network.model, [layer])
    if batch < 1:
        raise UserError(f"Expected batch >= 1; Received: {batch}.")
    settings = settings.complete(network.model)
    settings.check()
    folder = (Path("visualizations", network.name) if out is None else out) / f"{name}-atlas"
    check_folder(folder)
    chosen = source_images(network, images, split)
    settings.check(chosen.size)
    known = {"weights": weights_digest(network.model), **dataclasses.asdict(settings)}
    known |= {"source": chosen.builder.info.full_name, "split": chosen.name, "images": chosen.size}
    check_settings(folder, known)
    cells = _cells(folder, network, name, chosen, settings, known, progress)
    waiting = [number for number in range(len(cells.counts)) if not image_path(folder, number).is_file()]
    if waiting:
        _render(folder, IconRenderer(network.model, name, cells, settings, min(batch, len(waiting))), waiting, progress)
    write_text(folder / PAGE, _page(folder, network, name, cells, known))
    return folder / PAGE


def _cells(
    folder: Path,
    network: TrainedNetwork,
    layer: str,
    images: Split,
    settings: AtlasSettings,
    known: dict[str, Any],
    progress: Progress,
) -> Cells:
    """The cells that are there, or else new ones, which are written."""
    if (folder / CELLS).is_file():
        return _read_cells(folder / CELLS)
    with progress(f"activations of {layer}", math.ceil(images.size / READ)) as advance:

        def batches() -> Iterator[np.ndarray]:
            for pixels, _ in pixel_batches(network, images, READ):
                yield pixels
                advance()

        samples = sample_activations(network.model, layer, batches(), settings.most, settings.seed)
    with progress(f"layout of {layer}", 1) as advance:
        cells = lay_out(samples, settings)
        advance()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, known)
    with atomic_file(folder / CELLS) as part:
        np.savez_compressed(part, **cells._asdict())
    return cells


def _render(folder: Path, renderer: IconRenderer, waiting: Sequence[int], progress: Progress) -> None:
    """Writes the icons of cells, a batch at a time."""
    batch, steps = renderer.batch, renderer.settings.steps
    with progress(folder.name, -(-len(waiting) // batch) * steps) as advance:
        for start in range(0, len(waiting), batch):
            part = waiting[start : start + batch]
            for number, icon in zip(part, renderer(part, advance), strict=True):
                write_image(image_path(folder, number), to_pixels(icon))


def _read_cells(path: Path) -> Cells:
    """Raises UserError where the file is damaged."""
    try:
        with np.load(path) as stored:
            return Cells(**stored)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"Expected the cells of an atlas in {str(path)!r}; Received: {error}. Remove {str(path.parent)!r} to draw "
            "it anew."
        ) from error


def _page(folder: Path, network: TrainedNetwork, layer: str, cells: Cells, known: dict[str, Any]) -> str:
    """The page as HTML. The template escapes every text."""
    strongest = cells.attributions.argmax(axis=1) if cells.attributions.size else np.zeros(0, int)
    numbers, counts = np.unique(strongest, return_counts=True)
    legend = [
        {"name": network.classes[number], "hue": _hue(number, len(network.classes)), "count": count}
        for number, count in sorted(zip(numbers.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])
    ]
    typical = np.quantile(cells.counts, 0.9)
    shown = []
    for number, (column, row) in enumerate(cells.coordinates.tolist()):
        shown.append(
            {
                "column": column + 1,
                "row": known["grid"] - row,
                "count": int(cells.counts[number]),
                "scale": round(100 * min(1.0, max(0.5, float(np.sqrt(cells.counts[number] / typical))))),
                "hue": _hue(int(strongest[number]), len(network.classes)) if len(strongest) else None,
                "classes": _classes(network, cells.attributions[number]),
                "image": _data(image_path(folder, number)),
            }
        )
    title = f"What {layer} of {network.name} distinguishes"
    return render(TEMPLATE, title=title, layer=layer, settings=known, cells=shown, legend=legend[:LEGEND])


def _classes(network: TrainedNetwork, attributions: np.ndarray) -> list[tuple[str, float]]:
    """The classes that a cell speaks for most, with its mean attributions."""
    order = np.argsort(-attributions, kind="stable")[:TOP]
    return [(network.classes[number], float(attributions[number])) for number in order]


def _hue(number: int, classes: int) -> int:
    """Of a class, in degrees: evenly spread where there are few, else neighbors differ by the golden angle."""
    return 360 * number // classes if classes <= FEW else round(number * 137.508) % 360


def _data(path: Path) -> str:
    with Image.open(path) as image:
        return webp_address(image, QUALITY)

"""Activation atlases: what a layer distinguishes, as a map of rendered images (Carter et al. 2019, Distill)."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from keras import ops

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from inception_v1.extras import extra
from inception_v1.spec import smallest_input
from interpretability import objectives
from interpretability.activation_samples import Samples, sample_activations
from interpretability.atlas_layout import (
    GRID,
    MIN_DIST,
    NEIGHBORS,
    Cells,
    check_samples,
    grid_cells,
    normalize_layout,
    umap_layout,
    whitening,
)
from interpretability.gradients import check_backend
from interpretability.layer_names import own_name
from interpretability.network import check_layers
from interpretability.numbered_rendering import NumberedRenderer
from interpretability.progress import Progress, no_progress
from interpretability.rendering import default_size
from interpretability.transforms import CropOrPad, Jitter, Pad, RandomRotate, RandomScale, Transform

ICON, STEPS, BATCH = 96, 128, 16


@dataclasses.dataclass(frozen=True)
class AtlasSettings:
    """Everything that an atlas depends on but its network and images. The defaults are Lucid's.

    Attributes:
        grid: rows and columns of cells.
        neighbors: of each activation that UMAP keeps near it.
        min_dist: UMAP's smallest distance between activations.
        whiten: whether an icon maximizes what sets its cell apart, the mean activation times the inverse of E[a a^T],
            rather than the mean activation itself.
        cossim_pow: how strongly an icon keeps to the direction (see `objectives.direction`).
        size: height and width of the icons; None for the network's, at most 96.
        steps: for each icon.
        most: number of images that are used; of more a random choice.
        seed: of the choice of images and positions, of UMAP and of the icons.
    """

    grid: int = GRID
    neighbors: int = NEIGHBORS
    min_dist: float = MIN_DIST
    whiten: bool = True
    cossim_pow: float = 2
    size: int | None = None
    steps: int = STEPS
    most: int = 100_000
    seed: int = 0

    def complete(self, model: GoogLeNet) -> "AtlasSettings":
        """These settings with a size. Raises UserError where the network takes no icons of that size."""
        size, smallest = self.size or min(ICON, default_size(model)), smallest_input(model.spec)
        if size < smallest:
            raise UserError(f"Expected icons of at least {smallest} pixels for this network; Received: {size}.")
        return dataclasses.replace(self, size=size)

    def check(self, images: int | None = None) -> None:
        """Raises UserError for numbers out of range, or too few images."""
        size = 1 if self.size is None else self.size
        if min(self.grid, self.steps, self.most, size) < 1 or not 0 <= self.min_dist <= 1 or self.cossim_pow < 0:
            raise UserError(
                f"Expected grid, steps, size and most >= 1, min_dist from 0 to 1 and cossim_pow >= 0; Received: {self}."
            )
        check_samples(self.most if images is None else min(images, self.most), self.neighbors)


@dataclasses.dataclass(frozen=True)
class Atlas:
    """What `atlas` returns.

    Attributes:
        icons: float32 `(cells, size, size, channels)`, 0-1.
        cells: where they lie, and what they stand for.
    """

    icons: np.ndarray
    cells: Cells


def atlas(
    model: GoogLeNet,
    layer: str,
    batches: Iterable[Any],
    settings: AtlasSettings | None = None,
    batch: int = BATCH,
    progress: Progress = no_progress,
) -> Atlas:
    """Draws an activation atlas of a layer.

    One activation is taken from each image, at a random position; UMAP places activations that are alike side by side;
    a grid is laid over them; and the mean activation of each cell is rendered. The same arguments give the same atlas.

    Args:
        model: the network.
        layer: a name that `GoogLeNet.features` takes, or Lucid's.
        batches: of images on the 0-255 scale, `(batch, height, width, channels)`.
        settings: None for the defaults.
        batch: icons that are rendered at a time.
        progress: see `visualize`.

    Raises:
        UserError: an unknown layer, no more images than UMAP's neighbors, a grid whose cells all hold too few
            activations, or what `render` raises.
    """
    settings = (settings or AtlasSettings()).complete(model)
    settings.check()
    if batch < 1:
        raise UserError(f"Expected batch >= 1; Received: {batch}.")
    check_backend()
    check_layers(model, [layer])
    with extra("interpret"):
        import umap  # noqa: F401 - before minutes of work
    cells = lay_out(sample_activations(model, own_name(layer), batches, settings.most, settings.seed), settings)
    numbers = list(range(len(cells.counts)))
    batch = min(batch, len(numbers))
    renderer, icons = IconRenderer(model, own_name(layer), cells, settings, batch), list[np.ndarray]()
    with progress(f"atlas of {layer}", -(-len(numbers) // batch) * settings.steps) as advance:
        for start in range(0, len(numbers), batch):
            icons.append(renderer(numbers[start : start + batch], advance))
    return Atlas(np.concatenate(icons), cells)


def lay_out(samples: Samples, settings: AtlasSettings) -> Cells:
    """The cells of an atlas.

    Raises:
        UserError: no more activations than neighbors, or no cell with enough of them.
    """
    layout = normalize_layout(umap_layout(samples.activations, settings.neighbors, settings.min_dist, settings.seed))
    cells = grid_cells(layout, *samples, settings.grid)
    return cells._replace(directions=cells.means @ whitening(samples.activations)) if settings.whiten else cells


class IconRenderer:
    """Renders the icons of cells, compiled once.

    Args:
        model: the network.
        layer: our name.
        cells: of the atlas.
        settings: its settings, complete.
        batch: icons at a time.

    Attributes:
        settings, batch: as given.

    Raises:
        UserError: as `render`.
    """

    def __init__(self, model: GoogLeNet, layer: str, cells: Cells, settings: AtlasSettings, batch: int) -> None:
        assert settings.size is not None

        def objective(numbers: Any) -> objectives.Objective:
            chosen = ops.take(cells.directions, numbers, axis=0)
            return objectives.directions(layer, chosen, settings.cossim_pow, center=True)

        self._render = NumberedRenderer(model, objective, settings.size, batch, icon_transforms(settings.size))
        self.settings, self.batch = settings, batch

    def __call__(self, numbers: Sequence[int], advance: Callable[[], None] = lambda: None) -> np.ndarray:
        """Icons of at most `batch` cells, float32 `(len(numbers), size, size, channels)`, 0-1."""
        return self._render(numbers, self.settings.steps, self.settings.seed, advance=advance)


def icon_transforms(size: int = ICON) -> list[Transform]:
    """Those of Lucid's icons, which move far; below 96 pixels padding and crops are in proportion.

    Source: `lucid/recipes/activation_atlas/render.py`.
    """
    pad, small, large, last = (round(pixels * min(size, ICON) / ICON) for pixels in (16, 4, 8, 2))
    jitters = [Jitter(pixels) for pixels in (small, small, large, large, large)]
    degrees = (*range(-20, 20), *range(-10, 10), *range(-5, 5), 0, 0, 0, 0, 0)
    return [
        Pad(pad),
        *jitters,
        RandomScale(tuple(0.998**n for n in range(20, 40))),
        RandomRotate(degrees),
        Jitter(last),
        CropOrPad(size, size),
    ]

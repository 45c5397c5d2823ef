"""What layers keep of an image, as figures of `explain`'s page: caricatures, inversions and factors."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from inception_v1 import GoogLeNet
from inception_v1.errors import UserError
from interpretability.caricatures import caricature, feature_inversion
from interpretability.factors import FACTORS, Factors, factor_icons, factorize
from interpretability.image_files import as_image, to_pixels
from interpretability.network import check_layers
from interpretability.overlays import factor_overlay
from interpretability.progress import Progress, no_progress
from interpretability.rendering import STEPS


class Figure(NamedTuple):
    """One figure.

    Attributes:
        name: of its file, without number and ending.
        caption: below it.
        pixels: uint8 `(height, width, channels)`.
    """

    name: str
    caption: str
    pixels: np.ndarray


class Section(NamedTuple):
    """Figures of one layer, and what they are."""

    title: str
    figures: list[Figure]


@dataclasses.dataclass(frozen=True)
class LayerFigures:
    """Which figures to draw.

    Attributes:
        caricature: layers whose caricatures to draw, by our names or Lucid's.
        inversion: layers to invert.
        factors: layers whose activations to factorize.
        count: factors of a layer.
        steps: for each rendered image.
        seed: of all.
    """

    caricature: Sequence[str] = ()
    inversion: Sequence[str] = ()
    factors: Sequence[str] = ()
    count: int = FACTORS
    steps: int = STEPS
    seed: int = 0

    def check(self, model: GoogLeNet) -> None:
        """Raises UserError for a layer that the network lacks, or numbers below 1."""
        check_layers(model, [*self.caricature, *self.inversion, *self.factors])
        if min(self.count, self.steps) < 1:
            raise UserError(f"Expected count and steps >= 1; Received: {self.count}, {self.steps}.")

    def draw(self, model: GoogLeNet, images: np.ndarray, progress: Progress = no_progress) -> list[list[Section]]:
        """The sections of each image.

        Args:
            model: the network.
            images: uint8 `(images, height, width, channels)`.
            progress: see `visualize`.

        Raises:
            UserError: as `factorize` (before anything is rendered), `caricature` and `feature_inversion`.
        """
        found = [[factorize(model, image, layer, self.count, self.seed) for layer in self.factors] for image in images]
        layers = len(self.caricature) + len(self.inversion) + len(self.factors)
        if not layers:
            return [[] for _ in images]
        with progress("layers", len(images) * layers * self.steps) as advance:
            return [self._draw_one(model, *pair, advance) for pair in zip(images, found, strict=True)]

    def _draw_one(
        self, model: GoogLeNet, image: np.ndarray, found: Sequence[Factors], advance: Callable[[], None]
    ) -> list[Section]:
        def show(value: float) -> None:
            advance()

        sections = []
        rendered = (
            ("caricature", "Caricatures", caricature, self.caricature),
            ("inversion", "Inversions", feature_inversion, self.inversion),
        )
        for name, title, function, layers in rendered:
            figures = []
            for layer in layers:
                one = function(model, image, layer, steps=self.steps, seed=self.seed, show=show).images[0]
                figures.append(Figure(f"{name}-{layer}", layer, to_pixels(one)))
            sections += [Section(title, figures)] if figures else []
        for layer, factors in zip(self.factors, found, strict=True):
            icons = factor_icons(model, layer, factors, self.steps, self.seed, advance=advance)
            sections.append(_factor_section(image, layer, factors, icons))
        return sections


def _factor_section(image: np.ndarray, layer: str, factors: Factors, icons: np.ndarray) -> Section:
    """All factors over the image, and each of them beside its icon."""
    count = len(factors.directions)
    hues, limit = np.arange(count) / count, float(np.percentile(factors.maps, 99))  # as Lucid's
    figures = [Figure(f"factors-{layer}", "all", factor_overlay(image, factors.maps, hues, limit))]
    for number, icon in enumerate(icons):
        one = slice(number, number + 1)
        over = factor_overlay(image, factors.maps[..., one], hues[one], limit)
        height = over.shape[0]
        beside = as_image(to_pixels(icon)).convert("RGB").resize((height, height), Image.Resampling.NEAREST)
        pixels = np.concatenate([over, np.asarray(beside)], axis=1)
        figures.append(Figure(f"factors-{layer}-{number}", f"factor {number}", pixels))
    return Section(f"{count} factors of {layer}, without {factors.missing:.0%} of its activations' norm", figures)

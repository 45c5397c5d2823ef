"""`explain`: heat maps of the pixels that a network's predictions for image files come from, on a page."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from inception_v1.atomic_files import check_folder, write_text
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from inception_v1.spec import check_choice
from inception_v1.summary import BRANCH_COLORS
from interpretability.attribution import METHODS, Attribution, Explainer
from interpretability.branch_figures import branch_figures, branch_rows
from interpretability.branches import BranchContributions, BranchExplainer
from interpretability.checks import Check, check_attributions
from interpretability.gradients import inference
from interpretability.image_files import as_image, webp_address, write_image
from interpretability.layer_figures import LayerFigures, Section
from interpretability.network import inference_features
from interpretability.overlays import SHOWN, enlarged, overlay
from interpretability.progress import Progress, no_progress
from training.evaluation.classify import read_image
from training.report.page import render
from training.trained_network import TrainedNetwork, read_trained

TEMPLATE, PAGE = Path(__file__).with_name("explain.html.jinja"), "index.html"
QUALITY = 85  # of the page's WebP images
DEFAULT_METHODS = ("cam", "integrated_gradients")
TOP = 3


class Explanation(NamedTuple):
    """What `explain` returns.

    Attributes:
        page: its path.
        found: {method: `Attribution` of all images}.
        branches: contributions of the branches.
        checks: {method: `Check`}; empty unless asked for.
    """

    page: Path
    found: dict[str, Attribution]
    branches: BranchContributions
    checks: dict[str, Check]


def explain(
    source: str | os.PathLike[str],
    files: Sequence[str],
    methods: Sequence[str] | None = None,
    head: str = "main",
    target: str | None = None,
    out: Path | None = None,
    seed: int = 0,
    check: bool = False,
    ablation: bool = False,
    layers: LayerFigures | None = None,
    progress: Progress = no_progress,
) -> Explanation:
    """Explains a head's predictions for image files, and writes heat maps and a page that needs no other file.

    The page also shows how much each branch of each block contributes (see `branch_contributions`).

    Args:
        source: folder of a run, or a `.keras` file.
        files: paths of JPEG, PNG, GIF, BMP or WebP images.
        methods: some of `attribution.METHODS`; None for "cam" and "integrated_gradients", of an auxiliary head
            "gradcam" instead of "cam".
        head: "main", "aux1" or "aux2".
        target: the name or number of a class to explain in all images; None for each image's best.
        out: folder for `0-cam.png` and so on, by the number of the image, and `index.html`; None for
            `explanations/SOURCE`.
        seed: of what methods draw.
        check: whether to check the methods on these images too (see `check_attributions`).
        ablation: whether to set each branch's output to zero too.
        layers: caricatures, inversions and factors to draw as well.
        progress: see `visualize`.

    Raises:
        UserError: no such network, head, method, class or layer, or a file that is missing or no image (named).
    """
    if not files:
        raise UserError("Expected at least one image; Received: none.")
    if methods is None:
        methods = DEFAULT_METHODS if head == "main" else ("gradcam", "integrated_gradients")
    for method in methods:
        check_choice("method", method, METHODS)
    network = read_trained(source)
    out = Path("explanations", network.name) if out is None else out
    check_folder(out)
    spec = network.model.spec
    size = spec.input_shape[0] or (network.run.recipe().image_size if network.run else SHOWN)
    images = np.stack([np.asarray(read_image(str(file), size, spec.input_shape[2])) for file in files])
    classes = None if target is None else [class_number(network, target)] * len(images)
    found: dict[str, Attribution] = {}
    explainer = Explainer(network.model, head)
    layers = layers or LayerFigures()
    layers.check(network.model)
    sections = layers.draw(network.model, images, progress)
    with progress("explaining", len(methods) + 1) as advance:
        for method in methods:
            found[method] = explainer.attribute(images, method, classes, seed)
            advance()
        branches = BranchExplainer(network.model, head)(images, classes, ablation)
        advance()
    checks = check_attributions(network.model, images, methods, head, seed) if check else {}
    explanation = Explanation(out / PAGE, found, branches, checks)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (file, best) in enumerate(zip(files, _predictions(network, images), strict=True)):
        explained = network.classes[branches.classes[number]]
        shown = _write_maps(out, number, images[number], explanation)
        shown["sections"] = _write_sections(out, number, sections[number])
        rows.append({"file": str(file), "predictions": best, "explained": explained, **shown})
    title = f"Where the predictions of {network.name} come from"
    write_text(out / PAGE, render(TEMPLATE, title=title, head=head, rows=rows, colors=BRANCH_COLORS))
    return explanation


def _write_maps(out: Path, number: int, image: np.ndarray, explanation: Explanation) -> dict[str, Any]:
    """Writes the heat maps of an image, and returns what its page shows of them and of the branches."""
    drawn = {method: overlay(image, one.maps[number]) for method, one in explanation.found.items()}
    for method, pixels in drawn.items():
        write_image(out / f"{number}-{method}.png", pixels)
    return {
        "image": _data(enlarged(image)),
        "maps": {method: _data(pixels) for method, pixels in drawn.items()},
        "branches": branch_rows(explanation.branches, number),
        "figures": branch_figures(explanation.branches, number),
    }


def _write_sections(out: Path, number: int, sections: Sequence[Section]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Writes the figures of an image, and returns [(title, [(caption, address), ...]), ...] for its page."""
    shown = []
    for title, figures in sections:
        for figure in figures:
            write_image(out / f"{number}-{figure.name}.png", figure.pixels)
        shown.append((title, [(figure.caption, _data(enlarged(figure.pixels))) for figure in figures]))
    return shown


def class_number(source: TrainedNetwork, target: str) -> int:
    """The number of a class by its name, or by its number itself. Raises UserError where there is none."""
    if target in source.classes:
        return source.classes.index(target)
    if target.isdecimal() and int(target) < len(source.classes):
        return int(target)
    check_choice("target", target, source.classes)
    raise AssertionError(target)


def _predictions(source: TrainedNetwork, images: np.ndarray) -> list[dict[str, list[tuple[str, float]]]]:
    """For each image {head: [(class, probability), ...]}, best first."""
    heads = source.model.spec.heads
    logits = inference(inference_features(source.model, [f"{head}_logits" for head in heads]))
    of_heads = logits(normalize(images, source.model.spec.pixels))
    rows = []
    for number in range(len(images)):
        best = {}
        for head in heads:
            probabilities = softmax(of_heads[f"{head}_logits"][number].astype("float64"))
            order = np.argsort(-probabilities, kind="stable")[:TOP]
            best[head] = [(source.classes[i], float(probabilities[i])) for i in order]
        rows.append(best)
    return rows


def _data(pixels: np.ndarray) -> str:
    return webp_address(as_image(pixels), QUALITY)

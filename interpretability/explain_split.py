"""`explain --branches`: which branches serve which classes, over a split of a run's source."""

import csv
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inception_v1.atomic_files import atomic_file, check_folder, write_text
from inception_v1.errors import UserError
from inception_v1.spec import BRANCHES
from interpretability.branch_figures import SIGNIFICANT, heat_map
from interpretability.branches import BranchExplainer
from interpretability.checks import randomized
from interpretability.example_files import BATCH, decoded_images, example_images
from interpretability.progress import Progress, no_progress
from interpretability.specialization import (
    PERMUTATIONS,
    Specialization,
    ablations_of_split,
    check_labels,
    contributions_of_split,
    specialization,
)
from training.report import figures
from training.report.page import embed, render
from training.trained_network import TrainedNetwork, read_trained

TEMPLATE, PAGE = Path(__file__).with_name("branches.html.jinja"), "branches.html"
CSV, FIGURE = "branches.csv", "branches.png"
COLUMNS = (
    *("block", "branch", "class", "images", "mean_contribution", "mean_gain", "mean_share"),
    *("spread", "p", "p_adjusted"),
)
TOP = 3
MEASURES = {False: "the sum of its activations times their gradients", True: "how far it falls when its output is zero"}


class ExplainedSplit(NamedTuple):
    """What `explain_split` returns.

    Attributes:
        page: its path.
        blocks: names of the blocks.
        found: means, spreads and p-values.
        control: those of the same network with random weights; None unless asked for.
    """

    page: Path
    blocks: tuple[str, ...]
    found: Specialization
    control: Specialization | None

    def summary(self) -> list[str]:
        """Sentences on the network, and on the control."""
        controls = [f"With random weights {_sentence(self.control)}"] if self.control else []
        return [_sentence(self.found), *controls]


def explain_split(
    source: str | os.PathLike[str],
    split: str | None = None,
    head: str = "main",
    out: Path | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    check: bool = False,
    ablation: bool = False,
    progress: Progress = no_progress,
) -> ExplainedSplit:
    """Tests which branches are specialized, and writes `branches.csv`, `branches.png` and the page `branches.html`,
    which needs no other file.

    Args:
        source: folder of a run.
        split: TFDS split specification; None for the run's test split.
        head: "main", "aux1" or "aux2".
        out: folder; None for `explanations/SOURCE`.
        permutations: as of `specialization`.
        seed: of the permutations, and of random weights.
        check: whether to do the same with random weights too: what a network finds there was not learnt.
        ablation: whether to measure contributions by ablation instead of activation x gradient.
        progress: see `visualize`.

    Raises:
        UserError: no such run, head or split, images of a single class, or no permutation.
    """
    if permutations < 1:
        raise UserError(f"Expected permutations >= 1; Received: {permutations}.")
    network = read_trained(source)
    if network.run is None:
        raise UserError(f"Expected a run, whose source has the split; Received: {os.fspath(source)!r}.")
    out = Path("explanations", network.name) if out is None else out
    check_folder(out)
    explainer = BranchExplainer(network.model, head)
    images = example_images(network, split)
    if not images.size:
        raise UserError(f"Expected images in {images.name!r}; Received: none.")
    check_labels(np.array([int(label) for _, label in images.encoded_images()]))
    explainers = [explainer]
    if check:
        explainers.append(BranchExplainer(randomized(network.model, head, "all", seed), head))
    ds = decoded_images(network, images).batch(BATCH).prefetch(1)
    tested, passes = [], (1 if ablation else 2) * len(explainers)
    with progress(f"branches on {images.name}", passes * math.ceil(images.size / BATCH)) as advance:
        for one in explainers:
            if ablation:
                contributions = ablations_of_split(one, ds, advance)
            else:
                contributions = contributions_of_split(one, lambda: ds, len(network.classes), seed, advance)
            tested.append(specialization(contributions, permutations, seed))
    explained = ExplainedSplit(out / PAGE, explainer.blocks, tested[0], tested[1] if check else None)
    how = {"head": head, "measure": MEASURES[ablation], "permutations": permutations}
    _write(out, explained, network, how | {"split": images.name, "images": images.size})
    return explained


def _write(out: Path, explained: ExplainedSplit, source: TrainedNetwork, how: dict[str, Any]) -> None:
    """Writes the files; `how` is for the page's text."""
    out.mkdir(parents=True, exist_ok=True)
    _write_csv(out / CSV, explained, source.classes)
    figures.save(heat_map(explained.found, explained.blocks, source.classes), out / FIGURE)
    text = render(
        TEMPLATE,
        title=f"What the branches of {source.name} do",
        limit=SIGNIFICANT,
        summary=explained.summary(),
        figure=embed("mean share of each branch, by class", "", (out / FIGURE).read_bytes()),
        rows=_rows(explained, source.classes),
        **how,
    )
    write_text(out / PAGE, text)


def _sentence(found: Specialization) -> str:
    specialized, gains = int((found.adjusted < SIGNIFICANT).sum()), found.gains[..., found.images > 0]
    return (
        f"{specialized} of {found.p.size} branches are specialized (adjusted p < {SIGNIFICANT}), with a mean spread of "
        f"{found.spread.mean():.3f}; {(gains > 0).mean():.0%} of the gains by branch and class are positive."
    )


def _write_csv(path: Path, explained: ExplainedSplit, classes: list[str]) -> None:
    """A row for each branch and class with images."""
    found = explained.found
    with atomic_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for block, branch, label in np.ndindex(found.means.shape):
            if found.images[label]:
                at = (block, branch)
                tests = (found.spread[at], found.p[at], found.adjusted[at])
                means = (found.means[*at, label], found.gains[*at, label], found.shares[*at, label])
                names = (explained.blocks[block], BRANCHES[branch], classes[label], found.images[label])
                writer.writerow([*names, *(f"{value:.6g}" for value in (*means, *tests))])


def _rows(explained: ExplainedSplit, classes: list[str]) -> list[dict[str, Any]]:
    """What the page's table has of each branch, the largest spread first."""
    found, rows = explained.found, []
    for block, branch in np.ndindex(found.p.shape):
        means = found.shares[block, branch]
        best = np.argsort(-np.nan_to_num(means, nan=-np.inf), kind="stable")[:TOP]
        rows.append(
            {
                "block": explained.blocks[block],
                "branch": BRANCHES[branch],
                "spread": float(found.spread[block, branch]),
                "p": float(found.p[block, branch]),
                "adjusted": float(found.adjusted[block, branch]),
                "classes": [(classes[label], float(means[label])) for label in best if found.images[label]],
            }
        )
    return sorted(rows, key=lambda row: -row["spread"])

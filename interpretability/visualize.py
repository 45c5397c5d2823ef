"""`visualize`: an image of every channel of some layers, and a page of them."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inception_v1 import GoogLeNet
from inception_v1.atomic_files import check_folder, write_json, write_text
from inception_v1.errors import UserError
from inception_v1.spec import Inception
from interpretability.channel_rendering import ChannelRenderer, ChannelSettings
from interpretability.channels import branch_spans, channel_numbers, first_of_branches
from interpretability.example_files import example_images, read_examples, share_above_examples, write_examples
from interpretability.image_files import (
    SETTINGS,
    check_settings,
    image_path,
    read_json,
    strip_path,
    to_pixels,
    weights_digest,
    write_image,
)
from interpretability.layer_names import own_name
from interpretability.network import check_layers, width_of
from interpretability.page import Layer, render_page
from interpretability.progress import Progress, no_progress
from training.trained_network import TrainedNetwork, read_trained

BATCH = 16
PAGE = "index.html"
EXAMPLES = 6
ALL = "all"


class Visualization(NamedTuple):
    """What `visualize` returns.

    Attributes:
        page: its path.
        above: (number of channels whose rendered image has a larger mean activation than any image of the split, number
            of channels); None without examples.
    """

    page: Path
    above: tuple[int, int] | None


def visualize(
    source: str | os.PathLike[str],
    layer: str | Sequence[str],
    channels: str | None = None,
    out: Path | None = None,
    settings: ChannelSettings | None = None,
    batch: int = BATCH,
    examples: int | None = None,
    split: str | None = None,
    per_branch: int | None = None,
    progress: Progress = no_progress,
) -> Visualization:
    """Renders channels of layers, and writes them, with the images that activate them most, and a page that needs no
    other file: the network's drawing, which leads to blocks, branches and channels.

    Channels whose image is there are not rendered again, so that the same call resumes. An image depends on its channel
    and the seed, not on the others that are rendered with it.

    Args:
        source: folder of a run, or a `.keras` file.
        layer: a name that `GoogLeNet.features` takes, or Lucid's, or several of them; "all" for the nine blocks.
        channels: of each layer, such as "0-63,70"; None for all.
        out: folder for `LAYER/0012.png` and `index.html`, which several layers may share; None for
            `visualizations/SOURCE`.
        settings: how to render them.
        batch: images at a time.
        examples: for each channel, from a split of the run's source; None for 6, of a file none.
        split: TFDS split of the examples; None for the run's test split.
        per_branch: instead of `channels`: how many from the beginning of each branch of a block, or of another layer.
        progress: a context manager of (what is being done, number of steps) that yields a function to call after each.

    Returns:
        Where the page is, and how the rendered images compare with the examples.

    Raises:
        UserError: no such network, layer or channel, a folder with images of other weights or settings, or what
            `render` raises.
    """
    network = read_trained(source)
    examples = (EXAMPLES if network.run else 0) if examples is None else examples
    if examples and network.run is None:
        raise UserError(f"Expected a run, whose source has the examples; Received: {os.fspath(source)!r}.")
    own = Path("visualizations", network.name)
    out = own if out is None else out
    if batch < 1 or examples < 0:
        raise UserError(f"Expected batch >= 1 and examples >= 0; Received: {batch}, {examples}.")
    settings = (settings or ChannelSettings()).complete(network.model)
    wanted = chosen_channels(network.model, layer, channels, per_branch)
    about = {"weights": weights_digest(network.model)} | dataclasses.asdict(settings)
    for name in wanted:
        check_folder(out / name)
        check_settings(out / name, about)
        settings.check(network.model, name)
    images = example_images(network, split) if examples else None
    shares = []
    for name, numbers in wanted.items():
        waiting = [number for number in numbers if not image_path(out / name, number).is_file()]
        if waiting:
            _render_layer(out / name, network.model, waiting, settings, batch, progress, about)
        if images is not None:
            write_examples(out / name, network, name, images, examples, progress)
            shares.append(share_above_examples(out / name, network.model, name, numbers))
    write_page(out, network)
    above, count = (sum(share[at] for share in shares if share) for at in (0, 1))
    return Visualization(out / PAGE, (above, count) if count else None)


def chosen_channels(
    model: GoogLeNet, layer: str | Sequence[str], channels: str | None, per_branch: int | None
) -> dict[str, list[int]]:
    """{our name of a layer: its channels to render}; arguments and errors as of `visualize`."""
    if channels is not None and per_branch is not None:
        raise UserError(f"Expected channels or per_branch; Received: both, {channels!r} and {per_branch}.")
    if per_branch is not None and per_branch < 1:
        raise UserError(f"Expected per_branch >= 1; Received: {per_branch}.")
    names = [layer] if isinstance(layer, str) else list(layer)
    if ALL in names:
        blocks = [block.name for block in model.spec.trunk() if isinstance(block, Inception)]
        names = [other for name in names for other in (blocks if name == ALL else [name])]
    if not names:
        raise UserError("Expected at least one layer; Received: none.")
    check_layers(model, names)
    chosen = {}
    for name in map(own_name, names):
        count = width_of(model, name)
        first = per_branch and first_of_branches(model.spec, name, count, per_branch)
        chosen[name] = first or channel_numbers(channels, count, name)
    return chosen


def _render_layer(
    folder: Path,
    model: GoogLeNet,
    numbers: Sequence[int],
    settings: ChannelSettings,
    batch: int,
    progress: Progress,
    about: dict[str, Any],
) -> None:
    """Renders channels of a layer into its folder, which says what its images are about."""
    batch = min(batch, len(numbers))
    render = ChannelRenderer(model, folder.name, batch, settings)  # which checks the size
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, about)
    with progress(folder.name, -(-len(numbers) // batch) * settings.steps * settings.tries) as advance:
        for start in range(0, len(numbers), batch):
            part = numbers[start : start + batch]
            for number, image in zip(part, render(part, advance), strict=True):
                write_image(image_path(folder, number), to_pixels(image))


def write_page(out: Path, source: TrainedNetwork) -> None:
    """Writes the page of all layers whose images of this network are in a folder."""
    layers, weights = [], weights_digest(source.model)
    order = source.model.feature_names()
    folders = {path.parent.name: path.parent for path in out.glob(f"*/{SETTINGS}")}
    for name in sorted(folders.keys() & set(order), key=order.index):
        settings = read_json(folders[name] / SETTINGS)
        if settings.get("weights") != weights:
            continue
        images = {int(path.stem): path for path in sorted(folders[name].glob("[0-9]*.png"))}
        branches = branch_spans(source.model.spec, name)
        strips = {number: path for number in images if (path := strip_path(folders[name], number)).is_file()}
        layers.append(Layer(name, settings, images, branches, strips, read_examples(folders[name])))
    write_text(out / PAGE, render_page(source, layers))

"""`visualize`: an image of every channel of some layers, and a page of them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inception_v1 import GoogLeNet
from inception_v1.atomic_files import check_folder, write_json, write_text
from inception_v1.errors import UserError
from inception_v1.preprocessing import normalize
from inception_v1.spec import Inception, check_choice
from interpretability import objectives
from interpretability.channels import branch_spans, channel_numbers, first_of_branches
from interpretability.example_files import example_images, read_examples, share_above_examples, write_examples
from interpretability.gradients import inference
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
from interpretability.network import check_layers, fixed_size, inference_features, width_of
from interpretability.numbered_rendering import NumberedRenderer
from interpretability.page import Layer, render_page
from interpretability.progress import Progress, no_progress
from interpretability.rendering import LEARNING_RATE, STEPS, default_size
from interpretability.transforms import Transform
from training.trained_network import TrainedNetwork, read_trained

BATCH = 16
PAGE = "index.html"
EXAMPLES = 6
ALL = "all"
TRANSFORMS: dict[str, list[Transform] | None] = {"standard": None, "none": []}


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
    size: int | None = None,
    steps: int = STEPS,
    batch: int = BATCH,
    seed: int = 0,
    transforms: str = "standard",
    learning_rate: float = LEARNING_RATE,
    tries: int = 1,
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
        size: height and width of the images; None for the network's, at most 128.
        steps: for each image.
        batch: images at a time.
        seed: of the first images and transforms.
        transforms: "standard", or "none" for images that need not survive shifts, scaling and rotations.
        learning_rate: of Adam.
        tries: first images for each channel; the rendered image that activates it most is kept.
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
    check_choice("transforms", transforms, TRANSFORMS)
    if batch < 1 or tries < 1 or examples < 0 or not learning_rate > 0:
        raise UserError(
            f"Expected batch and tries >= 1, examples >= 0 and learning_rate > 0; Received: {batch}, {tries}, "
            f"{examples}, {learning_rate}."
        )
    size = size or default_size(network.model)
    wanted = chosen_channels(network.model, layer, channels, per_branch)
    settings = {"weights": weights_digest(network.model), "size": size, "steps": steps, "seed": seed}
    settings |= {"transforms": transforms, "learning_rate": learning_rate, "tries": tries}
    for name in wanted:
        check_folder(out / name)
        check_settings(out / name, settings)
        _check_tries(network.model, name, size, tries)
    images = example_images(network, split) if examples else None
    shares = []
    for name, numbers in wanted.items():
        _render_layer(out / name, network.model, numbers, settings, batch, progress)
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
    folder: Path, model: GoogLeNet, numbers: Sequence[int], settings: dict[str, Any], batch: int, progress: Progress
) -> None:
    """Renders the channels whose image is not in a layer's folder."""
    waiting = [number for number in numbers if not image_path(folder, number).is_file()]
    if not waiting:
        return
    batch, steps, tries = min(batch, len(waiting)), settings["steps"], settings["tries"]
    channel_renderer = ChannelRenderer(model, folder.name, settings["size"], batch, settings["transforms"], tries)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, settings)
    with progress(folder.name, -(-len(waiting) // batch) * steps * tries) as advance:
        for start in range(0, len(waiting), batch):
            part = waiting[start : start + batch]
            rendered = channel_renderer(part, steps, settings["seed"], settings["learning_rate"], advance)
            for number, image in zip(part, rendered, strict=True):
                write_image(image_path(folder, number), to_pixels(image))


class ChannelRenderer:
    """Renders channels of a layer, compiled once.

    Args:
        model: the network.
        layer: our name.
        size: height and width of the images.
        batch: images at a time.
        transforms: as of `visualize`.
        tries: likewise.

    Raises:
        UserError: several tries for a layer of an auxiliary head at another size than the network's.
    """

    def __init__(
        self, model: GoogLeNet, layer: str, size: int, batch: int, transforms: str = "standard", tries: int = 1
    ) -> None:
        self._tries, self._layer, self._pixels = tries, layer, model.spec.pixels
        _check_tries(model, layer, size, tries)
        self._render = NumberedRenderer(
            model, lambda numbers: objectives.channels(layer, numbers), size, batch, TRANSFORMS[transforms]
        )
        self._activations = inference(inference_features(model, [layer])) if tries > 1 else None

    def __call__(
        self,
        numbers: Sequence[int],
        steps: int = STEPS,
        seed: int = 0,
        learning_rate: float = LEARNING_RATE,
        advance: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """Images of at most `batch` channels, float32 `(len(numbers), size, size, channels)`."""
        best, most = np.zeros((len(numbers), *self._render.shape[1:]), "float32"), np.full(len(numbers), -np.inf)
        for attempt in range(self._tries):
            images = self._render(numbers, steps, seed, learning_rate, attempt, advance)
            means = self._means(images, numbers)
            better = means > most
            best[better], most[better] = images[better], means[better]
        return best

    def _means(self, images: np.ndarray, channels: Sequence[int]) -> np.ndarray:
        """Each channel's mean in its image, as it will be stored."""
        if self._activations is None:  # there is nothing to compare
            return np.zeros(len(images))
        maps = self._activations(normalize(to_pixels(images), self._pixels))[self._layer]
        return maps.reshape(len(maps), -1, maps.shape[-1]).mean(axis=1)[np.arange(len(maps)), channels]


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


def _check_tries(model: GoogLeNet, layer: str, size: int, tries: int) -> None:
    """Raises UserError for several tries at a layer of an auxiliary head, at another size than the network's."""
    if tries > 1 and fixed_size(model, [layer]) not in (None, (size, size)):
        raise UserError(f"Expected one try for {layer!r} at another size than the network's; Received: {tries}.")

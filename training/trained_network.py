"""Where a network to look at comes from: a run, or a file."""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inception_v1 import GoogLeNet
from training.run_folder import RunFolder
from training.transfer import read_network


class Source(NamedTuple):
    """A trained network.

    Attributes:
        model: the network.
        classes: names in label order; of a file without names their numbers.
        run: the folder, unless the network came from a file.
        name: of the folder or file, without its ending.
    """

    model: GoogLeNet
    classes: list[str]
    run: RunFolder | None
    name: str


def read_source(path: str | os.PathLike[str]) -> Source:
    """The best network of a run, or that in a `.keras` file. Raises UserError where there is none."""
    name = Path(path).absolute().name.removesuffix(".keras")
    if os.path.isfile(path):
        model = read_network(path)
        return Source(model, list(model.spec.class_names or map(str, range(model.spec.classes))), None, name)
    run = RunFolder(path)
    return Source(run.model(), run.classes(), run, name)


def digest(model: GoogLeNet) -> str:
    """CRC-32 of a network's weights, by which a folder knows whose images it holds."""
    value = 0
    for weight in model.weights:
        value = zlib.crc32(np.asarray(weight).tobytes(), value)
    return f"{value:08x}"

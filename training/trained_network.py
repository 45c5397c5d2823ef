"""Where a trained network comes from: a run, or a file."""

import os
from pathlib import Path
from typing import NamedTuple

from inception_v1 import GoogLeNet
from training.run_folder import RunFolder
from training.transfer import read_network


class TrainedNetwork(NamedTuple):
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


def read_trained(path: str | os.PathLike[str]) -> TrainedNetwork:
    """The best network of a run, or that in a `.keras` file. Raises UserError where there is none."""
    name = Path(path).absolute().name.removesuffix(".keras")
    if os.path.isfile(path):
        model = read_network(path)
        return TrainedNetwork(model, list(model.spec.class_names or map(str, range(model.spec.classes))), None, name)
    run = RunFolder(path)
    return TrainedNetwork(run.model(), run.classes(), run, name)

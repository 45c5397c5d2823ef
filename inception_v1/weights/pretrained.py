"""Published weights by name: downloaded once, checked, converted once, and offline from then on."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras

from inception_v1.atomic_files import contended_file
from inception_v1.errors import UserError
from inception_v1.keras_home import keras_home


class Download(NamedTuple):
    """A published file.

    Attributes:
        url: its address.
        sha256: of its content, or as many of its first digits as were published.
        source: what the hash was taken from.
    """

    url: str
    sha256: str
    source: str

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]


DOWNLOADS = {
    "torchvision": Download(
        "https://download.pytorch.org/models/googlenet-1378be20.pth",
        "1378be20",  # its name is its hash's beginning, which torch.hub checks too
        "torchvision/models/googlenet.py",
    ),
    "caffe": Download(
        "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
        "6f7101e3a2183738a7125a0c5021ba82a1feb4228c5ca0924d991b6daf6f6fad",
        "OpenVINO open_model_zoo, googlenet-v1/model.yml",
    ),
    "slim": Download(
        "http://download.tensorflow.org/models/inception_v1_2016_08_28.tar.gz",
        "7a620c430fcaba8f8f716241f5148c4c47c035cce4e49ef02cfbe6cd1adf96a6",
        "OpenVINO open_model_zoo, googlenet-v1-tf/model.yml",
    ),
}
NAMES = {"imagenet": "torchvision", **{name: name for name in DOWNLOADS}}


def converted_file(name: str, import_weights: Callable[[Path], keras.Model]) -> Path:
    """The `.keras` file of published weights, made where there is none yet.

    Args:
        name: a key of `NAMES`.
        import_weights: makes the network of a downloaded file.

    Raises:
        UserError: the file cannot be downloaded, and is not in the cache, or is another than the published one.
    """
    download = DOWNLOADS[NAMES[name]]
    folder = keras_home() / "models" / "googlenet"
    ready = folder / f"{NAMES[name]}.keras"
    if not ready.is_file():
        model = import_weights(_fetched(download, folder))
        with contended_file(ready) as part:
            model.save(part)
    return ready


def _fetched(download: Download, folder: Path) -> Path:
    path = folder / download.file
    if not path.is_file():
        try:
            keras.utils.get_file(
                download.file, download.url, cache_dir=folder.parent.parent, cache_subdir="models/googlenet"
            )
        except Exception as error:  # whatever the network and its proxies come up with
            raise UserError(
                f"Expected {download.file!r} to be downloaded from {download.url}; Received: {error}. "
                f"Without a network put the file at {str(path)!r}."
            ) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(download.sha256):
        raise UserError(
            f"Expected {str(path)!r} to have the published SHA-256 {download.sha256}; Received: {digest}. "
            f"Remove it and try again, or download it from {download.url}."
        )
    return path

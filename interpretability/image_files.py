"""The files of a layer's folder, and images within a page."""

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inception_v1 import GoogLeNet
from inception_v1.atomic_files import atomic_file
from inception_v1.errors import UserError

SETTINGS = "settings.json"


def image_path(folder: Path, channel: int) -> Path:
    """The file of a channel's rendered image."""
    return folder / f"{channel:04d}.png"


def strip_path(folder: Path, channel: int) -> Path:
    """The file of a channel's examples, side by side."""
    return folder / "examples" / f"{channel:04d}.png"


def to_pixels(image: np.ndarray) -> np.ndarray:
    """An image 0-1 as uint8."""
    return np.round(np.clip(image, 0, 1) * 255).astype("uint8")


def as_image(pixels: np.ndarray) -> Image.Image:
    """uint8 `(height, width, channels)` as Pillow takes it."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def webp_address(image: Image.Image, quality: int) -> str:
    """An image as the address of a WebP image, which a page holds."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Writes uint8 `(height, width, channels)` as PNG, whole or not at all."""
    with atomic_file(path) as part:
        as_image(pixels).save(part)


def read_image(path: Path, channels: int) -> np.ndarray:
    """The uint8 `(height, width, channels)` of a PNG file. Raises UserError where it is damaged."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(*image.size[::-1], channels)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises SyntaxError for broken chunks
        raise UserError(
            f"Expected an image in {str(path)!r}; Received: {error}. Remove it to render it anew."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A file that `visualize` wrote beside images. Raises UserError where it is damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Expected the settings of rendered images in {str(path)!r}; Received: {error}.") from error
    if not isinstance(found, dict):
        raise UserError(f"Expected the settings of rendered images in {str(path)!r}; Received: other JSON.")
    return found


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Raises UserError where a folder holds images of other settings."""
    path = folder / SETTINGS
    stored = read_json(path) if path.is_file() else settings
    if other := [f"{key} {stored.get(key)!r}, not {own!r}" for key, own in settings.items() if stored.get(key) != own]:
        raise UserError(
            f"Expected a new folder (--out), or the network and settings of the images there; Received: "
            f"{str(folder)!r}, with {', '.join(other)}."
        )


def weights_digest(model: GoogLeNet) -> str:
    """CRC-32 of a network's weights, by which a folder knows whose images it holds."""
    value = 0
    for weight in model.weights:
        value = zlib.crc32(np.asarray(weight).tobytes(), value)
    return f"{value:08x}"

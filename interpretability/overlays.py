"""Maps drawn over the images that they belong to."""

import colorsys

import numpy as np
from PIL import Image

SHOWN = 224  # pixels of an image on a page at least


def overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map over its image in gray: red speaks for the class, blue against it.

    Args:
        image: uint8 `(height, width, channels)`.
        values: float `(rows, columns)`, as large or smaller.

    Returns:
        uint8 `(height, width, 3)`, of at least `SHOWN` pixels.
    """
    gray = enlarged(image).mean(axis=-1, keepdims=True) * 0.6 + 255 * 0.4
    height, width, _ = gray.shape
    large = resized(values, (height, width))
    limit = np.quantile(np.abs(large), 0.995) or 1.0  # single pixels would hide the rest
    strength = np.clip(large / limit, -1, 1)[..., None]
    color = np.where(strength > 0, np.array([214.0, 39.0, 40.0]), np.array([31.0, 119.0, 180.0]))
    weight = 0.8 * np.abs(strength)
    return np.round(gray * (1 - weight) + color * weight).astype("uint8")


def factor_overlay(image: np.ndarray, maps: np.ndarray, hues: np.ndarray, limit: float) -> np.ndarray:
    """Maps of several factors over their image in gray, each in a color.

    Args:
        image: uint8 `(height, width, channels)`.
        maps: float `(rows, columns, factors)`, not negative.
        hues: `(factors,)`, 0-1.
        limit: value that is drawn in the full color.

    Returns:
        uint8 `(height, width, 3)`, of at least `SHOWN` pixels.
    """
    gray = enlarged(image).mean(axis=-1, keepdims=True) * 0.5 + 255 * 0.1
    strengths = [np.clip(resized(one, gray.shape[:2]) / (limit or 1.0), 0, 1) for one in np.moveaxis(maps, -1, 0)]
    strength = np.stack(strengths, axis=-1)
    colors = 255 * np.array([colorsys.hsv_to_rgb(hue, 0.9, 1.0) for hue in hues])
    total = strength.sum(axis=-1, keepdims=True)
    mixed = strength @ colors / np.maximum(total, 1e-6)
    weight = 0.75 * np.minimum(total, 1)
    return np.round(gray * (1 - weight) + mixed * weight).astype("uint8")


def enlarged(image: np.ndarray) -> np.ndarray:
    """uint8 `(height, width, channels)` by a whole factor, so that the longer side has `SHOWN` pixels."""
    factor = max(1, -(-SHOWN // max(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def resized(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A map, float32 and bilinear, at another height and width."""
    height, width = size
    return np.asarray(Image.fromarray(values.astype("float32")).resize((width, height), Image.Resampling.BILINEAR))

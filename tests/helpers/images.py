"""Images, image files and folders of them."""

import io
from pathlib import Path

import numpy as np
import skimage
import sklearn.datasets
from PIL import Image

PHOTOGRAPHS = [Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images"]


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def patch_images(count, height, width, channels, seed=0):
    """uint8 images of large patches, each of another brightness, which a network tells apart."""
    random = np.random.default_rng(seed)
    patches = random.uniform(0, 1, (count, 4, 4, channels)) * random.uniform(0.2, 1, (count, 1, 1, 1))
    return np.round(
        255 * np.kron(patches, np.ones((1, -(-height // 4), -(-width // 4), 1)))[:, :height, :width]
    ).astype("uint8")


def make_folder(root, splits=("",), classes=("cat", "dog"), count=4, suffixes=(".png",)):
    rng = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(rng.integers(0, 256, (40, 50, 3), "uint8"))
                image.save(folder / f"{i}{suffixes[i % len(suffixes)]}")
    return f"folder:{root}"


def photograph_parts(name, size, seed=0):
    """The parts of a photograph of scikit-image or scikit-learn that do not overlap, in random order: uint8 `(parts,
    size, size, 3)`."""
    (path,) = [path for folder in PHOTOGRAPHS for path in folder.glob(f"{name}.*")]
    pixels = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = (n // size for n in pixels.shape[:2])
    parts = pixels[: rows * size, : columns * size].reshape(rows, size, columns, size, 3).swapaxes(1, 2)
    return np.random.default_rng(seed).permutation(parts.reshape(-1, size, size, 3))


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), "uint8"))
ROTATED = NOISE.transpose(Image.Transpose.ROTATE_180)
TRANSPARENT = NOISE.convert("RGBA")
TRANSPARENT.putalpha(ROTATED.resize(NOISE.size).convert("L"))
READABLE = {
    "png": encode(NOISE, "PNG"),
    "jpeg": encode(NOISE, "JPEG"),
    "bmp": encode(NOISE, "BMP"),
    "webp": encode(NOISE, "WEBP"),
    "lossless webp": encode(NOISE, "WEBP", lossless=True),
    "opaque webp with alpha": encode(NOISE.convert("RGBA"), "WEBP"),
    "transparent webp": encode(TRANSPARENT, "WEBP", exact=True),
    "transparent lossless webp": encode(TRANSPARENT, "WEBP", lossless=True, exact=True),
    "animated webp": encode(NOISE, "WEBP", save_all=True, append_images=[ROTATED] * 3),
    "transparent animated webp": encode(
        NOISE.convert("RGBA"), "WEBP", save_all=True, append_images=[Image.new("RGBA", NOISE.size, (9, 9, 9, 9))] * 3
    ),
    "gif": encode(NOISE, "GIF"),
    "animated gif": encode(NOISE, "GIF", save_all=True, append_images=[ROTATED] * 3, comment=b"c" * 766),
    "palette": encode(NOISE.convert("P"), "PNG"),
    "CMYK": encode(NOISE.convert("CMYK"), "JPEG"),
    "16 bits": encode(Image.fromarray(np.full((37, 53), 40 * 256 + 7, "uint16")), "PNG"),
}
GOOD = encode(Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), "uint8")), "PNG")
BOMBS = {
    "truncated png": GOOD[: len(GOOD) // 2],
    "truncated jpeg": READABLE["jpeg"][:300],
    "start of a jpeg": b"\xff\xd8\xff",
    "nothing": b"",
    "text": b"<html>not found</html>",
    "30,000 x 30,000": encode(Image.new("1", (30_000, 30_000)), "PNG"),
}

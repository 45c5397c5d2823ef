"""Image files and folders of them."""

import io

import numpy as np
from PIL import Image


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), "uint8"))
ROTATED = NOISE.transpose(Image.Transpose.ROTATE_180)
READABLE = {
    "png": encode(NOISE, "PNG"),
    "jpeg": encode(NOISE, "JPEG"),
    "bmp": encode(NOISE, "BMP"),
    "webp": encode(NOISE, "WEBP"),
    "lossless webp": encode(NOISE, "WEBP", lossless=True),
    "transparent webp": encode(NOISE.convert("RGBA"), "WEBP"),
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

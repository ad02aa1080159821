"""Pictures from files, through Pillow."""

from __future__ import annotations

import math
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from .record import Record, blamed
from .source import BrokenSample

MAX_PIXELS = 2**27  # of one picture; a damaged header can ask for any size
LEAST_SIDE = 8  # spacers and tracking dots are pictures of nothing
# Those that hold pixels and nothing else: for EPS, Pillow would start Ghostscript on a stranger's program.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and which pictures a quarter turn puts upright


def read_image(record: Record, cover: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 `[H, W, 3]`, upright. With `cover` (width, height), a JPEG that is several times larger may come smaller,
    though never smaller than what covers that. Raises BrokenSample.
    """
    with (
        blamed(record.name, "is not a picture that can be read"),
        record.open() as file,
        Image.open(file, formats=FORMATS) as opened,
    ):
        check_size(opened.width, opened.height)
        if cover:
            _draft(opened, cover)
        image: Image.Image = ImageOps.exif_transpose(opened)  # cameras turn the picture by a note in the file
        image = _eight_bits(image, opened.format)
        image = image.convert("RGBA") if image.mode in ("P", "PA", "LA") else image
        if image.mode == "RGBA":  # on white, as a browser shows it
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))


def shown_size(file: IO[bytes]) -> tuple[int, int]:
    """(width, height) of a picture, upright; its pixels are not read. Raises what Pillow does for what is none."""
    with Image.open(file, formats=FORMATS) as opened:
        return (opened.height, opened.width) if _on_its_side(opened) else opened.size


def check_size(width: int, height: int) -> None:
    """Raises BrokenSample for pictures that nobody means."""
    if width * height > MAX_PIXELS:
        raise BrokenSample(f"claims {width}x{height} pixels")
    if min(width, height) < LEAST_SIDE:
        raise BrokenSample(f"has {width}x{height} pixels; a picture has {LEAST_SIDE} a side at least")


def _on_its_side(image: Image.Image) -> bool:
    return image.getexif().get(ORIENTATION) in TURNED


def _draft(opened: Image.Image, cover: tuple[int, int]) -> None:
    """Let the JPEG decoder halve, quarter or eighth the picture, which is most of the work on large ones."""
    width, height = reversed(cover) if _on_its_side(opened) else cover
    scale = max(width / opened.width, height / opened.height)
    if scale < 1:
        opened.draft(None, (math.ceil(opened.width * scale), math.ceil(opened.height * scale)))


def _eight_bits(image: Image.Image, format: str | None) -> Image.Image:
    """Grey values in more than eight bits, which a conversion would clip instead of scale. Raises BrokenSample for
    those whose range nobody knows.
    """
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):  # so written, NaN is refused too
            raise BrokenSample(
                f"has floating-point values from {values.min():g} to {values.max():g}, expected 0 to 1; save it with 8"
                " or 16 bits"
            )
        return Image.fromarray((values * 255).round().astype(np.uint8))
    if image.mode.startswith("I"):
        if image.mode == "I" and format not in ("PNG", "PPM"):
            raise BrokenSample("has 32-bit integers, whose range is not known; save it with 8 or 16 bits")
        values = np.asarray(image, dtype=np.float32) / 257
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    return image

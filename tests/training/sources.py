"""Small sources, whole and broken, and how tests read them."""

from __future__ import annotations

import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from vc2.training.recipe import Recipe
from vc2.training.sources import media
from vc2.training.sources.record import Record
from vc2.training.sources.source import View


def recipe(data: dict, **changes) -> Recipe:
    small = {"width": 64, "height": 64, "workers": 0, "held_out": 0, "caption_dropout": 0.0, "lengths": [[4, 1, 2]]}
    return Recipe.model_validate({"name": "data", "steps": 1000, "batch": 4, "data": {**small, **data}, **changes})


def picture(seed: int, size: tuple[int, int] = (40, 48)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """A tar as img2dataset writes it."""
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for ending, content in files.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def laion(folder: Path, tars: int, each: int) -> Path:
    folder.mkdir()
    for t in range(tars):
        keys = [f"{t:05d}{i:04d}" for i in range(each)]
        write_tar(
            folder / f"{t:05d}.tar",
            {k: {"png": picture(zlib.crc32(k.encode())), "txt": f"picture {k}".encode(), "json": b"{}"} for k in keys},
        )
    return folder


def broken_folder(tmp_path: Path, good: int, bad: int) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(good + bad):
        (folder / f"{i:03d}.png").write_bytes(
            picture(i) if i < good else [b"", b"not a picture", picture(i)[:200]][i % 3]
        )
        (folder / f"{i:03d}.txt").write_text(f"photo {i}")
    return folder


def view(frames=8, strides=(2, 2), uniform=(0.0, 0.37), place=(0.5, 0.5)) -> View:
    return View(frames, strides, uniform, 64, 64, place)


def clip_of(path: str, **changes):
    return media.read_clip(Record(path, "", Path(path), ".mp4"), view(**changes))

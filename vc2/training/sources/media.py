"""Files to frames: decode, resize, crop. Memory holds one source frame at a time and the frames that are asked for.

Videos are decoded by the ffmpeg that imageio-ffmpeg carries, in a process of its own: a file that would crash a decoder
cannot take the run with it.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...files.video import reading
from .record import Record
from .source import BrokenSample, Sample, View

MAX_PIXELS = 2**27  # of one picture; a damaged header can ask for any size


def fit(frame: np.ndarray, width: int, height: int, place: tuple[float, float]) -> Tensor:
    """A frame uint8 `[H, W, 3]` -> uint8 `[3, height, width]`: resized to cover, then cropped at `place` (0..1 of what
    is cut off, across and down).
    """
    h, w = frame.shape[:2]
    scale = max(width / w, height / h)
    size = (max(height, round(h * scale)), max(width, round(w * scale)))
    picture = torch.tensor(frame).permute(2, 0, 1)[None]
    if size != (h, w):
        # torch's own, on bytes: kornia's antialiasing blurs in floating point first and took 47 ms for a 336x596 frame
        # where this takes 1.2.
        picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
    top, left = round((size[0] - height) * place[1]), round((size[1] - width) * place[0])
    return picture[0, :, top : top + height, left : left + width].contiguous()


def read_image(record: Record) -> np.ndarray:
    """uint8 `[H, W, 3]`. Raises BrokenSample."""
    try:
        with record.open() as file, Image.open(file) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise BrokenSample(f"{record.name} claims {opened.width}x{opened.height} pixels")
            image: Image.Image = ImageOps.exif_transpose(opened)  # cameras turn the picture by a note in the file
            if image.mode.startswith("I"):  # 16 bits a pixel, which a conversion would clip instead of scale
                image = Image.fromarray(
                    (np.asarray(image, dtype=np.float32) / 257).round().clip(0, 255).astype(np.uint8)
                )
            image = image.convert("RGBA") if image.mode in ("P", "PA", "LA") else image
            if image.mode == "RGBA":  # on white, as a browser shows it
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenSample(f"{record.name} is not a picture that can be read: {error}") from error


@contextmanager
def _as_path(record: Record) -> Iterator[Path]:
    """ffmpeg reads files: what lies in a tar is written to a temporary one."""
    if isinstance(record.file, Path):
        if not record.file.is_file():
            raise BrokenSample(f"{record.name}: no such file")
        yield record.file
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip{record.ending}"
        with open(path, "wb") as file, record.open() as content:
            shutil.copyfileobj(content, file)
        yield path  # closed: Windows opens no file twice


def read(record: Record, medium: str, view: View) -> Sample:
    """A record's clip or image, as `view` says. Raises BrokenSample, or OSError where the disk fails."""
    if medium == "images":
        return Sample(fit(read_image(record), view.width, view.height, view.place)[None], record.caption, 0.0)
    clip, fps = read_clip(record, view)
    return Sample(clip, record.caption, fps)


def read_clip(record: Record, view: View) -> tuple[Tensor, float]:
    """Frames uint8 `[T, 3, height, width]` of a video, and their rate: source fps / stride. Raises BrokenSample."""
    with _as_path(record) as path:
        try:
            fps, total = probe(path)
            frames, (stride, first) = view.frames or total, view.choose(total)

            def decode(first: int) -> list[Tensor]:
                decoded = _decode(path, fps, first, stride, frames)
                return [fit(frame, view.width, view.height, view.place) for frame in decoded]

            clip = decode(first)
            # Containers count what they like: the sound may be longer than the picture. Then the clip is the last there
            # is.
            if 0 < len(clip) < frames and first >= (missing := (frames - len(clip)) * stride):
                clip = decode(first - missing)
        except BrokenSample as error:
            raise BrokenSample(f"{record.name} {error}") from error
        except (OSError, RuntimeError, ValueError, KeyError, IndexError, ZeroDivisionError, StopIteration) as error:
            raise BrokenSample(f"{record.name} is not a video that can be read: {_brief(error)}") from error
    if len(clip) < frames:
        raise BrokenSample(f"{record.name} ended after {len(clip)} of {frames} frames at a stride of {stride}")
    return torch.stack(clip), fps / stride


def _decode(path: Path, fps: float, first: int, stride: int, frames: int) -> Iterator[np.ndarray]:
    """Every `stride`-th frame from the `first` on, `frames` at the most, uint8 `[H, W, 3]`."""
    # A quarter of a frame early, so that rounding cannot skip the frame; at constant rate, since files of varying rate
    # have no n-th frame.
    start = max(0.0, (first - 0.25) / fps)
    wanted = f"fps={fps:.6f},select=not(mod(n\\,{stride}))"
    *guard, _, name = reading(path)
    reader = imageio_ffmpeg.read_frames(
        name,
        input_params=[*guard, "-ss", f"{start:.6f}"],
        output_params=["-vf", wanted, "-fps_mode", "passthrough", "-frames:v", str(frames)],
    )
    w, h = next(reader)["size"]
    if w * h > MAX_PIXELS:
        raise BrokenSample(f"claims {w}x{h} pixels")
    for data in reader:
        yield np.frombuffer(data, np.uint8).reshape(h, w, 3)


def probe(path: Path) -> tuple[float, int]:
    """Frames a second and their number, by the container's word."""
    *guard, _, name = reading(path)
    reader = imageio_ffmpeg.read_frames(name, input_params=guard, output_params=["-frames:v", "1"])
    try:
        meta = next(reader)
    finally:
        reader.close()
    fps = float(meta["fps"])
    if not 0 < fps < 1000 or not math.isfinite(meta["duration"]):
        raise BrokenSample(f"has {fps} frames a second and lasts {meta['duration']} s")
    return fps, round(meta["duration"] * fps)


def _brief(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1][-200:] if lines else type(error).__name__

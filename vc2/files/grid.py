"""Clips side by side, as in the paper's Figures 2 to 6."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont


class Clip(Protocol):
    """Frames uint8 `[h, w, 3]`: a list of them, or an array with one more axis."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


GROUND, INK = (14, 16, 22), (200, 204, 214)


def caption(text: str, width: int, height: int) -> np.ndarray:
    """A strip uint8 `[height, width, 3]` with the text in its middle, as large as fits."""
    strip = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(strip)
    size = height * 0.6
    while size > 6 and draw.textlength(text, font=ImageFont.load_default(size)) > 0.96 * width:
        size -= 1
    draw.text((width / 2, height / 2), text, INK, ImageFont.load_default(size), anchor="mm")
    return np.asarray(strip)


def side_by_side(
    clips: Sequence[Clip], labels: Sequence[str] = (), columns: int = 0, gap: int = 4
) -> Iterator[np.ndarray]:
    """Frames uint8 `[H, W, 3]` of a grid of clips, one at a time.

    Each clip is a sequence of uint8 frames `[h, w, 3]`; all are scaled to the first one's size, and a shorter one holds
    its last frame. A label stands below its clip; without any there is no strip. `columns` 0: as near a square as can
    be, wider than high. Raises ValueError for no clips, an empty one, or more labels than clips.
    """
    if not clips or any(len(clip) == 0 for clip in clips):
        raise ValueError("nothing to compare: give at least one clip, and none without frames")
    if len(labels) > len(clips):
        raise ValueError(f"there are {len(labels)} labels for {len(clips)} clips; give one a clip")
    height, width = clips[0][0].shape[:2]
    columns = columns or math.ceil(math.sqrt(len(clips)))
    columns = min(columns, len(clips))
    rows = math.ceil(len(clips) / columns)
    strip = max(16, round(width / 12)) if any(labels) else 0
    strips = [caption(text, width, strip) for text in labels] if strip else []
    canvas = np.empty((rows * (height + strip + gap) - gap, columns * (width + gap) - gap, 3), np.uint8)
    canvas[:] = GROUND
    for t in range(max(len(clip) for clip in clips)):
        for i, clip in enumerate(clips):
            y, x = i // columns * (height + strip + gap), i % columns * (width + gap)
            canvas[y : y + height, x : x + width] = _fit(clip[min(t, len(clip) - 1)], width, height)
            if i < len(strips):
                canvas[y + height : y + height + strip, x : x + width] = strips[i]
        yield canvas.copy()


def _fit(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))

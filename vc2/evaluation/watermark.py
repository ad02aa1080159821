"""How strong is the watermark of the paper's world in a clip, and what is below it?"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from ..training.sources import paper_world, world

APART = 4  # pixels between the two that are compared; a stroke is as wide
ROOM = 60.0  # brightness (of 255) that a pixel must have left for a watermark to show on it


@lru_cache(1)
def _pairs() -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of pixels in the middle of a stroke, and of pixels beside it, in one row or column."""
    covered = paper_world.watermark().numpy() > 0.5
    inside, outside = binary_erosion(covered), ~binary_dilation(covered)
    index = np.arange(covered.size).reshape(covered.shape)
    pairs = []
    for dy, dx in ((0, APART), (0, -APART), (APART, 0), (-APART, 0)):
        beside, known = np.roll(outside, (-dy, -dx), (0, 1)), np.roll(index, (-dy, -dx), (0, 1))
        pairs.append(np.stack([index[inside & beside], known[inside & beside]]))
    both = np.concatenate(pairs, 1)
    return both[0], both[1]


def opacity(clip: np.ndarray) -> float:
    """The watermark's opacity in a clip uint8 `[T, 64, 64, 3]`, 0 where there is none; it may come out below 0.

    A stroke of opacity a lifts a pixel p to p + a (255 - p). So a is the median, over pairs of pixels in and beside a
    stroke, of the difference over what was left to 255; edges of objects meet few pairs.
    """
    pixels = clip.astype(np.float32).reshape(len(clip), world.SIZE**2, 3).mean(-1)
    strokes, beside = _pairs()
    inner, outer = pixels[:, strokes], pixels[:, beside]
    room = 255 - outer
    ratios = (inner - outer)[room > ROOM] / room[room > ROOM]
    return float(np.median(ratios)) if ratios.size else 0.0


def removed(clip: np.ndarray, strength: float) -> np.ndarray:
    """The clip below a watermark of that opacity, float32 `[T, 64, 64, 3]` of 0..255."""
    hidden = np.clip(strength, 0, 0.9) * paper_world.watermark().numpy()[..., None]
    return ((clip.astype(np.float32) - 255 * hidden) / (1 - hidden)).clip(0, 255)

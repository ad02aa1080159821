"""How good the pictures of a clip of the paper's world look: one number for each defect of its low quality.

Each is a share: 0 is the clean world and 1 the low-quality one, both as the autoencoder gives them back, since no model
behind it can do better. `Scale` holds these two ends, measured by the gates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, uniform_filter

from ..training.sources import paper_world
from . import judge
from .judge import Seen

DEFECTS = ("watermark", "fade", "tint", "blotches", "blur")
ABOVE = paper_world.WATERMARK_TOP - 2  # rows without a watermark, or the rest of one


def measure(seen: Seen) -> dict[str, float]:
    """Each of DEFECTS in its own unit: opacity; levels of 255 for brightness, red less blue, and the unevenness of the
    background; pixels for the width of the object's edge (nan where there is no object).
    """
    red, _, blue = seen.background
    return {
        "watermark": seen.opacity,
        "fade": float(seen.background.mean()),
        "tint": float(red - blue),
        "blotches": _unevenness(seen),
        "blur": _edge_width(seen) if seen.detected else np.nan,
    }


def _unevenness(seen: Seen) -> float:
    """Standard deviation of the smoothed background, over the frames' median."""
    deviations = []
    for frame, mask in zip(seen.clip, seen.masks, strict=True):
        free = ~binary_dilation(mask, iterations=6)[:ABOVE]
        smooth = uniform_filter(frame.mean(-1), 5)[:ABOVE]
        deviations.append(float(smooth[free].std()))
    return float(np.median(deviations))


def _edge_width(seen: Seen) -> float:
    """Pixels between a fifth and four fifths of the way from the background to the object, for each pixel of its
    outline; over the frames' median.
    """
    difference = judge.contrast(seen)
    widths = []
    for i in seen.times:
        way = (seen.clip[i] - seen.background) @ difference / (difference @ difference)
        mask = seen.masks[i]
        inner = binary_erosion(mask)
        near = binary_dilation(mask, iterations=4) & ~binary_erosion(mask, iterations=4)
        outline = (mask & ~inner)[:ABOVE].sum()
        if outline:
            widths.append(float((near & (way > 0.2) & (way < 0.8))[:ABOVE].sum() / outline))
    return float(np.median(widths)) if widths else np.nan


@dataclass(frozen=True)
class Scale:
    """The mean of each defect over clean and over low-quality ground truth behind the autoencoder."""

    clean: dict[str, float]
    low: dict[str, float]

    @classmethod
    def of(cls, clean: Iterable[dict[str, float]], low: Iterable[dict[str, float]]) -> Scale:
        return cls(_means(clean), _means(low))

    def shares(self, measured: dict[str, float]) -> dict[str, float]:
        """nan for a defect of which the autoencoder leaves nothing, and for one that was not measured."""
        gaps = {name: self.low[name] - self.clean[name] for name in DEFECTS}
        return {name: (measured[name] - self.clean[name]) / gap if gap else np.nan for name, gap in gaps.items()}

    def defect(self, measured: dict[str, float]) -> float:
        """The mean of the shares, each within 0..1; of those that could be measured."""
        return float(np.nanmean(np.clip(list(self.shares(measured).values()), 0, 1)))


def _means(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    rows = list(rows)
    return {name: float(np.nanmean([row[name] for row in rows])) for name in DEFECTS}

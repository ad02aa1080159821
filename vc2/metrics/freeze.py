"""Does a clip stand still? What every temporal measure is to be read beside."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .frames import luma
from .metric import Clip, ClipMetric, Measure, moving

BLOCK = 16  # pixels: a small object that moves changes a block of its size
STILL = 1.0  # of 255, mean over a block; compression changes flat areas by less


class Freeze(ClipMetric):
    name = "freeze"
    measures = (
        Measure("freeze", "share of the steps from frame to frame in which no block of 16x16 pixels changes", "lower"),
        Measure("duplicates", "share of the frames that are equal to the one before to the bit", "lower"),
    )
    warning = "duplicates do not survive lossy compression everywhere; freeze does"

    def measure(self, clip: Clip) -> dict[str, float]:
        frames = moving(clip)
        steps = list(pairwise(frames))
        return {
            "freeze": float(np.mean([largest_change(before, after) < STILL for before, after in steps])),
            "duplicates": float(np.mean([np.array_equal(before, after) for before, after in steps])),
        }


def largest_change(before: np.ndarray, after: np.ndarray) -> float:
    """The mean change of brightness in that block which changes most; blocks overlap by half."""
    change = np.abs(np.diff(luma(np.stack([before, after])), axis=0))[0]
    size = min(BLOCK, *change.shape)
    windows = np.lib.stride_tricks.sliding_window_view(change, (size, size))[:: size // 2, :: size // 2]
    return float(windows.mean((2, 3)).max())

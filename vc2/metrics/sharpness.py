"""How much fine structure frames have."""

from __future__ import annotations

import numpy as np

from .frames import luma
from .metric import Clip, ClipMetric, Measure


class Sharpness(ClipMetric):
    name = "sharpness"
    measures = (
        Measure("sharpness", "variance of the Laplacian of the brightness (0..255), mean over the frames", "higher"),
    )
    warning = "noise and compression count as sharpness, too: compare only where `noise` is alike"

    def measure(self, clip: Clip) -> dict[str, float]:
        return {"sharpness": float(np.mean([laplacian(frame).var() for frame in luma(clip.frames)]))}


def laplacian(frame: np.ndarray) -> np.ndarray:
    """The sum of the four neighbours less four times the pixel, `[H - 2, W - 2]`."""
    neighbours = frame[:-2, 1:-1] + frame[2:, 1:-1] + frame[1:-1, :-2] + frame[1:-1, 2:]
    return neighbours - 4 * frame[1:-1, 1:-1]

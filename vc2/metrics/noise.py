"""How much white noise is on the frames."""

from __future__ import annotations

import numpy as np

from .frames import luma
from .metric import Clip, ClipMetric, Measure

MAD_OF_A_NORMAL = 0.6745  # the median of |x| of a normal variable, in its standard deviations


class Noise(ClipMetric):
    """The robust estimate of Donoho and Johnstone (Biometrika, 1994), from the finest diagonal details."""

    name = "noise"
    measures = (
        Measure(
            "noise", "standard deviation of white noise on the brightness (0..255), median over the frames", "lower"
        ),
    )
    warning = "fine texture everywhere counts as noise; compression takes noise away"

    def measure(self, clip: Clip) -> dict[str, float]:
        return {"noise": float(np.median([sigma(frame) for frame in luma(clip.frames)]))}


def sigma(frame: np.ndarray) -> float:
    """Of a frame `[H, W]`: median |d| / 0.6745 over its Haar wavelet's diagonal details d, which white noise enters
    with its own standard deviation and smooth content hardly.
    """
    height, width = (side // 2 * 2 for side in frame.shape)
    a, b = frame[:height:2, :width:2], frame[:height:2, 1:width:2]
    c, d = frame[1:height:2, :width:2], frame[1:height:2, 1:width:2]
    return float(np.median(np.abs(a - b - c + d) / 2) / MAD_OF_A_NORMAL)

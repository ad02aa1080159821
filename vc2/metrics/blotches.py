"""How uneven flat areas are, at the width of an autoencoder's cells."""

from __future__ import annotations

import numpy as np

from .frames import luma
from .metric import Clip, ClipMetric, Measure
from .noise import MAD_OF_A_NORMAL

FINE, COARSE = 3.0, 9.0  # sigmas in pixels: what is between them is 8 to 30 pixels wide


class Blotches(ClipMetric):
    name = "blotches"
    measures = (
        Measure(
            "blotches", "robust deviation of the brightness (0..255) at 8 to 30 pixels, mean over the frames", "lower"
        ),
    )
    library = ("scipy",)
    modules = ("scipy",)
    licence = "BSD-3-Clause"
    warning = "large texture counts as blotches: compare clips of the same prompts and size"

    def measure(self, clip: Clip) -> dict[str, float]:
        return {"blotches": float(np.mean([unevenness(frame) for frame in luma(clip.frames)]))}


def unevenness(frame: np.ndarray) -> float:
    """Median |x| / 0.6745 of the difference of two blurs; the median passes over objects and their outlines."""
    from scipy.ndimage import gaussian_filter

    band = gaussian_filter(frame, FINE) - gaussian_filter(frame, COARSE)
    return float(np.median(np.abs(band)) / MAD_OF_A_NORMAL)

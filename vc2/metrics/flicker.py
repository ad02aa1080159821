"""How far a frame is from the mean of its neighbours: what trembles, flickers or jumps."""

from __future__ import annotations

import numpy as np

from .frames import luma
from .metric import Clip, ClipMetric, Measure, moving


class Flicker(ClipMetric):
    name = "flicker"
    measures = (
        Measure("flicker", "mean distance of a frame's brightness (0..255) from the mean of its neighbours'", "lower"),
        Measure("flicker_brightness", "the same of each frame's mean brightness: light that goes up and down", "lower"),
    )
    warning = "a frozen clip has none, and fast motion has some: read `flow` and `freeze` beside it"

    def measure(self, clip: Clip) -> dict[str, float]:
        frames = luma(moving(clip, 3))
        brightness = frames.mean((1, 2), dtype=np.float64)
        residuals = [
            np.abs(here - (before + after) / 2).mean()
            for before, here, after in zip(frames, frames[1:], frames[2:], strict=False)
        ]
        middle = brightness[1:-1] - (brightness[:-2] + brightness[2:]) / 2
        return {"flicker": float(np.mean(residuals)), "flicker_brightness": float(np.abs(middle).mean())}

"""Contrast, saturation and colour cast, in CIE L*a*b*, whose distances are as the eye's."""

from __future__ import annotations

import numpy as np

from .frames import as_tensor
from .metric import Clip, ClipMetric, Measure


class Colour(ClipMetric):
    name = "colour"
    measures = (
        Measure(
            "contrast", "standard deviation of lightness L* (0..100) within a frame, mean over the frames", "neither"
        ),
        Measure("saturation", "chroma, the distance from grey in (a*, b*), mean over all pixels", "neither"),
        Measure("colour_cast", "distance from grey of the mean (a*, b*) of all pixels: 0 is balanced", "lower"),
    )
    library = ("kornia",)
    modules = ("kornia",)
    licence = "Apache-2.0"
    warning = "what a scene shows counts, too: a clip of a meadow has a green cast"

    def measure(self, clip: Clip) -> dict[str, float]:
        from kornia.color import rgb_to_lab

        # A frame at a time: Lab in floats is twelve times the size of a clip.
        frames = [rgb_to_lab(as_tensor(frame[None]))[0].flatten(1).double() for frame in clip.frames]
        chroma = np.mean([float(frame[1:].norm(dim=0).mean()) for frame in frames])
        cast = np.mean([frame[1:].mean(1).numpy() for frame in frames], axis=0)
        return {
            "contrast": float(np.mean([float(frame[0].std(correction=0)) for frame in frames])),
            "saturation": float(chroma),
            "colour_cast": float(np.linalg.norm(cast)),
        }

"""EvalCrafter's four aspects: the linear fits to users' opinions that it released, with their defects.

They are here to be compared with the paper's Table 1, not to be believed: see `warning`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .metric import Composite, Measure


@dataclass(frozen=True)
class Fit:
    """constant + the sum of weight x term; a term is (scale x value) of a measure, or 1 - that."""

    about: str
    constant: float
    terms: tuple[tuple[float, str, float, bool], ...]  # weight, measure, scale, subtracted from 1

    def of(self, means: Mapping[str, float]) -> float:
        total = self.constant
        for weight, name, scale, inverse in self.terms:
            value = scale * means[name]
            total += weight * (1 - value if inverse else value)
        return total


VISUAL = Fit(
    "visual quality",
    43.54,
    (
        (15.02, "dover.evalcrafter_aesthetic", 0.01, False),
        (14.44, "dover.evalcrafter_technical", 0.01, False),
        (-6.91, "inception_score", 0.01, False),
    ),
)
TEXT_VIDEO = Fit(
    "text-video alignment",
    -30.68,
    (
        (-35.08, "clipsim", 1, False),
        (12.81, "blip_bleu", 1, False),
        (27.83, "sd_score", 1, False),
        (8.70, "detection_score", 1, False),
        (-10.48, "colour_score", 1, False),
        (15.35, "count_score", 1, False),
        (1.86, "ocr_score", 1, True),
        (113.43, "celebrity_score", 1, True),
    ),
)
MOTION = Fit(
    "motion quality",
    64.88,
    ((-8.21, "action", 1, False), (-6.70, "motion_amplitude", 1, False), (-52.59, "raft_flow", 0.01, False)),
)
TEMPORAL = Fit(
    "temporal consistency",
    -1711.4,
    (
        (1462.5, "clip_temporal", 1, False),
        (227.4, "raft_warping_error", 1, True),
        (87.8, "face_consistency", 1, False),
    ),
)
FITS = {"visual": VISUAL, "text_video": TEXT_VIDEO, "motion": MOTION, "temporal": TEMPORAL}
DEFECTS = {
    "visual": "the inception score lowers it",
    "text_video": "a better CLIP score lowers it; EvalCrafter's had frames that were not normalised, ours are; a clip"
    " without text has no OCR error",
    "motion": "all weights are negative, so that a frozen clip has the best",
    "temporal": "its cap, 66.28 for a perfect clip, is below the paper's 69.71: Table 1 cannot have been made with it",
}


class EvalCrafter(Composite):
    """One aspect; it is skipped unless all its parts were measured. Each part's mean is over the clips that have it, as
    EvalCrafter does: a clip without a person has no face to be consistent.
    """

    table = "Table 1"
    licence = "the fits' numbers are EvalCrafter's"
    preprocessing = "means over the set of its parts, which stand beside it"

    def __init__(self, aspect: str):
        fit = FITS[aspect]
        self.name = f"evalcrafter_compat.{aspect}"
        self.measures = (Measure(self.name, f"EvalCrafter's {fit.about}, 0 to 100 by intent", "higher"),)
        self.warning = DEFECTS[aspect]
        self.parts = tuple(name for _, name, _, _ in fit.terms)
        self._fit = fit

    def measure(self, means: Mapping[str, float]) -> dict[str, float]:
        return {self.name: self._fit.of(means)}


EVALCRAFTER = tuple(EvalCrafter(aspect) for aspect in FITS)

"""What a report knows of the measures that rows name."""

from __future__ import annotations

from ...metrics.metric import Measure
from ...metrics.registry import MEASURES

# Of the miniature's judge, which no file of clips has rows of.
MOTION_ERROR = Measure(
    "motion error", "distance from a steady movement at the world's speed; 1 is a still picture", "lower"
)
DEFECT = Measure("defect", "mean share of watermark, fade, tint, blotches and blur; 1 is the training videos", "lower")
AS_ASKED = Measure("as asked", "1 where colour, shape and direction are those of the prompt, else 0", "higher")
JUDGE = {measure.name: measure for measure in (MOTION_ERROR, DEFECT, AS_ASKED)}


def known(name: str) -> Measure | None:
    """None for a measure of another program."""
    return MEASURES.get(name) or JUDGE.get(name)

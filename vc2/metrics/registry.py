"""All metrics by name, and what a name stands for."""

from __future__ import annotations

from collections.abc import Iterable

from .action import Action
from .blotches import Blotches
from .clip import ClipScores
from .colour import Colour
from .cuts import Cuts
from .evalcrafter import EVALCRAFTER
from .external import EXTERNAL
from .faces import Faces
from .filters import Filters
from .flicker import Flicker
from .flow import Flow, Raft
from .freeze import Freeze
from .fvd import FVD, KVD
from .imagenet import FrameConsistency, LiteKernelDistance
from .inception import FID, KID, InceptionScore
from .metric import Measure, Metric
from .noise import Noise
from .sharpness import Sharpness
from .watermark_text import WatermarkText

_ALL: tuple[Metric, ...] = (
    *(Sharpness(), Filters(), Colour(), Noise(), Blotches(), Flicker(), Freeze()),  # without weights
    *(Flow(), FrameConsistency(), LiteKernelDistance(), WatermarkText(), Cuts()),  # weights come with the library
    *(ClipScores(), Raft(), Action(), Faces(), FVD(), KVD(), InceptionScore(), FID(), KID()),  # the user's files
    *EXTERNAL,
    *EVALCRAFTER,
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
MEASURES: dict[str, Measure] = {measure.name: measure for metric in _ALL for measure in metric.measures}
_OF_MEASURE: dict[str, Metric] = {name: metric for metric in _ALL for name in metric.measure_names()}


def metric_of(name: str) -> Metric | None:
    """The metric of that name, or the one that has a measure of that name (a row's `metric`)."""
    return METRICS.get(name) or _OF_MEASURE.get(name)


def chosen(names: Iterable[str]) -> dict[Metric, list[str]]:
    """Metrics by their names, or by those of some of their measures; each with the measures that are meant. A name that
    ends in a dot means all that begin so. Raises ValueError for an unknown one.
    """
    picked: dict[Metric, list[str]] = {}
    for name in names:
        many = [metric for metric in METRICS if name.endswith(".") and metric.startswith(name)]
        for one in many or [name]:
            metric = metric_of(one)
            if metric is None:
                raise ValueError(f"there is no metric {one!r}; there are {', '.join(METRICS)}")
            meant = metric.measure_names() if one in METRICS else [one]
            so_far = picked.setdefault(metric, [])
            so_far += [measure for measure in meant if measure not in so_far]
    return picked

"""Chosen metrics on the clips that a run samples, to be followed like its loss."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from ..files.video import read_clip
from ..metrics.metric import Clip, ClipMetric, NotApplicableError
from ..metrics.registry import chosen
from .recipe import Recipe

log = logging.getLogger(__name__)


def sample_clips(recipe: Recipe, folder: Path) -> dict[str, float]:
    """`samples/<measure>`, each the mean over the clips of the recipe's prompts in `folder` that have such a number.

    A clip or a metric that fails is told and left out: a run of weeks does not end for it.
    """
    values: dict[str, list[float]] = defaultdict(list)
    metrics: dict[ClipMetric, list[str]] = {}  # with the measures that are wanted of each
    for metric, wanted in chosen(recipe.validation.metrics).items():
        assert isinstance(metric, ClipMetric)  # the recipe takes no others
        if reason := metric.available():
            log.warning("validation.metrics: %s is left out: %s", metric.name, reason)
        else:
            metrics[metric] = wanted
    for path in sorted(folder.glob("*.mp4") if metrics else ()):
        try:
            clip = Clip(*read_clip(path), prompt_of(recipe, path), path)
        except Exception:  # as below
            log.warning("%s of %s failed", ", ".join(metric.name for metric in metrics), path, exc_info=True)
            continue
        for metric, wanted in metrics.items():
            try:
                figures = metric.measure(clip)
            except NotApplicableError as error:
                log.info("%s has no %s: %s", path, metric.name, error)
            except Exception:  # whatever a library says of a clip
                log.warning("%s of %s failed", metric.name, path, exc_info=True)
            else:
                for name in wanted:
                    if math.isfinite(figures.get(name, math.nan)):
                        values[name].append(figures[name])
    for metric in metrics:
        metric.close()
    return {f"samples/{name}": float(np.mean(some)) for name, some in values.items()}


def prompt_of(recipe: Recipe, path: Path) -> str:
    """A sample's name begins with the number of its prompt."""
    return recipe.samples.prompts[int(path.name.partition("-")[0])]

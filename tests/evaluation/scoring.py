"""Metrics that know what they were asked, and their scores of a folder of clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vc2.evaluation import suites
from vc2.evaluation.rows import read_scores
from vc2.evaluation.scoring import Scoring
from vc2.evaluation.sets import clips_of
from vc2.metrics.metric import Clip, ClipMetric, CorpusMetric, Measure, NotApplicableError

PROMPTS = {p.id: p for p in suites.load("miniature").prompts[:3]}


class Brightness(ClipMetric):
    """Counts how often it is asked."""

    name = "brightness"
    measures = (Measure("brightness", "mean", "neither"), Measure("colourless", "never there", "neither"))
    asked: list[str]
    fails = ""

    def __init__(self):
        self.asked = []

    def measure(self, clip: Clip) -> dict[str, float]:
        self.asked.append(clip.prompt)
        if self.fails == "raise":
            raise KeyError("odd")
        if self.fails == "nan":
            return {"brightness": float("nan")}
        if self.fails == "not applicable":
            raise NotApplicableError("no face is in it")
        return {"brightness": float(clip.frames.mean())}


class Spread(CorpusMetric):
    name = extractor = "spread"
    measures = (Measure("spread", "of means", "lower"),)
    least = 3

    def __init__(self, needs_reference: bool = False):
        self.needs_reference = needs_reference
        self.looked = 0

    def features(self, clip: Clip) -> np.ndarray:
        self.looked += 1
        return clip.frames.mean((1, 2))[:, :1].astype(float)

    def measure(self, features, reference) -> dict[str, float]:
        gap = np.concatenate(reference).mean() if reference else 0
        return {"spread": float(np.concatenate(features).mean() - gap)}


def scoring(clips: Path, **how) -> Scoring:
    return Scoring("other", clips_of(clips, PROMPTS), PROMPTS, clips / "scores.jsonl", **how)


def values(clips: Path, metric: str, control: str | None = None) -> dict[str | None, float | None]:
    found = read_scores(clips / "scores.jsonl")
    return {row.clip: row.value for row in found if row.metric == metric and row.control == control}


def statuses(clips: Path, metric: str, control: str | None = None) -> set[str]:
    return {r.status for r in read_scores(clips / "scores.jsonl") if r.metric == metric and r.control == control}

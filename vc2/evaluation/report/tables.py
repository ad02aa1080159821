"""Tables from scores: a mean a set, its interval over prompts, and the same of the controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from ...metrics.registry import metric_of
from ..rows import CONTROLS, GROUND_TRUTH, OK, Score
from ..writing import rounded
from .measures import known

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """The mean over clips and its 95 % interval, for which prompts are drawn, not clips: clips of one prompt are alike.
    None for a measure of the whole set, and for a single prompt.
    """

    mean: float
    interval: tuple[float, float] | None
    clips: int
    prompts: int


def clustered(values: Mapping[str, Sequence[float]]) -> Mean:
    """Of values by prompt."""
    sums = np.array([sum(some) for some in values.values()])
    counts = np.array([len(some) for some in values.values()])
    mean = float(sums.sum() / counts.sum())
    interval = None
    if len(sums) > 1 and np.ptp(sums / counts) > 0:
        drawn = stats.bootstrap(
            (sums, counts),
            lambda s, c, axis: s.sum(axis) / c.sum(axis),
            paired=True,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        interval = (float(drawn.low), float(drawn.high))
    elif len(sums) > 1:
        interval = (mean, mean)
    return Mean(mean, interval, int(counts.sum()), len(sums))


@dataclass(frozen=True)
class Cell:
    """A set in a measure's table. `controls` by name; `against`: the mean difference from the first set on the prompts
    that both have; `beaten_by`: controls that are as good or better.
    """

    set: str
    value: Mean | None
    controls: Mapping[str, Mean]
    against: Mean | None
    beaten_by: tuple[str, ...]
    missing: str  # why there is no value


@dataclass(frozen=True)
class Table:
    """A measure: what it is, what computed it, and a cell a set."""

    measure: str
    about: str
    better: str  # "higher", "lower" or "neither"
    warning: str
    cells: tuple[Cell, ...]
    implementation: tuple[str, ...]
    weights: tuple[str, ...]
    preprocessing: tuple[str, ...]
    reference: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """A measure, or a metric that never got as far, which has no value anywhere; or clips that failed."""

    measure: str
    set: str
    reason: str
    clips: int


@dataclass(frozen=True)
class Tables:
    measures: tuple[Table, ...]
    skipped: tuple[Skipped, ...] = field(default=())


def tables(sets: Sequence[str], scores: Sequence[Score]) -> Tables:
    """In the order of the sets, and of the measures as they were first scored."""
    by_measure: dict[str, list[Score]] = {}
    for score in scores:
        by_measure.setdefault(score.metric, []).append(score)
    made = [_table(name, sets, some) for name, some in by_measure.items() if any(s.status == OK for s in some)]
    return Tables(tuple(made), tuple(_skipped(scores)))


def _table(measure: str, sets: Sequence[str], scores: Sequence[Score]) -> Table:
    named, metric = known(measure), metric_of(measure)
    better = named.better if named else "neither"
    values = {(name, control): _values(scores, name, control) for name in sets for control in (None, *CONTROLS)}
    cells = []
    for name in sets:
        controls = {c: clustered(values[name, c]) for c in CONTROLS if values[name, c]}
        value = clustered(values[name, None]) if values[name, None] else None
        # That the truth is better than a model says nothing against the measure.
        beaten = tuple(c for c, mean in controls.items() if value and c != GROUND_TRUTH and _wins(mean, value, better))
        against = _difference(values[name, None], values[sets[0], None]) if name != sets[0] else None
        missing = "" if value else _reason(scores, name)
        cells.append(Cell(name, _of_corpus(scores, name, value), controls, against, beaten, missing))
    measured = [score for score in scores if score.status == OK]
    return Table(
        measure,
        named.about if named else "",
        better,
        metric.warning if metric else "",
        tuple(cells),
        tuple(dict.fromkeys(score.implementation for score in measured)),
        tuple(dict.fromkeys(score.weights for score in measured if score.weights)),
        tuple(dict.fromkeys(score.preprocessing for score in measured)),
        tuple(dict.fromkeys(score.reference for score in measured if score.reference)),
    )


def _values(scores: Sequence[Score], name: str, control: str | None) -> dict[str, list[float]]:
    """By prompt; a clip without one stands for itself."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if (score.set, score.control) == (name, control) and score.value is not None:
            values.setdefault(score.prompt_id or f"/{score.clip}", []).append(score.value)
    return values


def _of_corpus(scores: Sequence[Score], name: str, value: Mean | None) -> Mean | None:
    """A measure of all clips together counts those that it saw."""
    seen = [score.n for score in scores if score.set == name and score.control is None and score.clip is None]
    return Mean(value.mean, None, seen[-1] or 0, 0) if value and seen else value


def _wins(control: Mean, value: Mean, better: str) -> bool:
    return better != "neither" and (control.mean >= value.mean if better == "higher" else control.mean <= value.mean)


def _difference(values: Mapping[str, Sequence[float]], first: Mapping[str, Sequence[float]]) -> Mean | None:
    shared = [prompt for prompt in values if prompt in first]
    if len(shared) < 2:
        return None
    return clustered({prompt: [float(np.mean(values[prompt]) - np.mean(first[prompt]))] for prompt in shared})


def _reason(scores: Sequence[Score], name: str) -> str:
    return next((score.status for score in scores if score.set == name and score.control is None), "not scored")


def _skipped(scores: Sequence[Score]) -> list[Skipped]:
    """Each reason once, with the number of clips that it is given for."""
    reasons = Counter(
        (score.metric, score.set, score.status) for score in scores if score.status != OK and score.control is None
    )
    return [Skipped(*key, count) for key, count in reasons.items()]


def tree(made: Tables) -> list[dict[str, Any]]:
    """The tables as JSON, to six digits."""

    def mean(value: Mean | None) -> dict[str, Any] | None:
        if value is None:
            return None
        return {"mean": value.mean, "interval": value.interval, "clips": value.clips, "prompts": value.prompts}

    return rounded(
        [
            {
                "measure": table.measure,
                "about": table.about,
                "better": table.better,
                "warning": table.warning,
                "implementation": list(table.implementation),
                "weights": list(table.weights),
                "preprocessing": list(table.preprocessing),
                "reference": list(table.reference),
                "sets": [
                    {
                        "set": cell.set,
                        "value": mean(cell.value),
                        "controls": {name: mean(value) for name, value in cell.controls.items()},
                        "against the first set": mean(cell.against),
                        "beaten by": list(cell.beaten_by),
                        "missing": cell.missing,
                    }
                    for cell in table.cells
                ],
            }
            for table in made.measures
        ]
    )

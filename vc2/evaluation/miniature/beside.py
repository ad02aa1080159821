"""What is looked at beside the claims, without a verdict: what else could explain them, and what would contradict them.

A contrast is a number a seed, of which 0 means "it makes no difference"; the words say what a positive one means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .. import statistics
from .arms import BY_NAME, ROWS
from .claims import Results
from .evidence import Seed, on_some
from .tables import Stop, of_row, trajectory

Value = Callable[[Seed], float | None]


@dataclass(frozen=True)
class Contrast:
    """`of` a seed is None where a row is missing, or where there is nothing to compare."""

    topic: str
    claims: tuple[int, ...]
    positive: str  # what a positive number means
    of: Value


@dataclass(frozen=True)
class Seen:
    """A contrast over seeds: `values` of those that have one, by the seed's number."""

    contrast: Contrast
    values: dict[int, float]

    @property
    def mean(self) -> float | None:
        return float(np.mean(list(self.values.values()))) if self.values else None

    @property
    def interval(self) -> tuple[float, float] | None:
        values = list(self.values.values())
        return statistics.interval(values) if len(values) > 1 else None

    @property
    def positive(self) -> int:
        return sum(value > 0 for value in self.values.values())


def _last(measure: Callable[[Results, str], float], *signs: tuple[float, str]) -> Value:
    """A sum of an averaged last row's measure over models."""

    def value(seed: Seed) -> float | None:
        if any(arm not in seed.results.rows for _, arm in signs):
            return None
        return sum(sign * measure(seed.results, arm) for sign, arm in signs)

    return value


def _excess_rise(measure: Callable[[Results, str], float], p: str, f: str) -> Value:
    """How much more a measure rises from P-base to `p` than from F-base to `f`."""
    return _last(measure, (1, p), (-1, "P-base"), (-1, f), (1, "F-base"))


def _with_object(arm: str) -> Value:
    """How much motion error rises from the base, over the clips in which both models show one object."""

    def value(seed: Seed) -> float | None:
        rows = [seed.results.rows.get(name) for name in (arm, f"{arm[0]}-base")]
        if None in rows:
            return None
        speeds, errors = ([row[name] for row in rows if row] for name in ("speed", "motion_error"))
        rises = [
            after - before
            for after, before, *speed in zip(*errors, *speeds, strict=True)
            if all(one is not None for one in speed)
        ]
        return float(np.mean(rises)) if rises else None

    return value


def _less(first: Value, second: Value) -> Value:
    """The first less the second, where a seed has both."""

    def value(seed: Seed) -> float | None:
        a, b = first(seed), second(seed)
        return None if a is None or b is None else a - b

    return value


def _at(stops: Sequence[Stop], along: Callable[[Stop], float | None], level: float) -> float | None:
    """Motion error where the way first passes a level, between two stops in proportion."""
    for before, after in pairwise(stops):
        here, there = along(before), along(after)
        if here is None or there is None or not min(here, there) <= level <= max(here, there):
            continue
        a, b = before.measures["motion error"], after.measures["motion error"]
        assert a is not None
        assert b is not None
        return a + (b - a) * ((level - here) / (there - here) if there != here else 0.0)
    return None


def _matched(first: str, second: str, along: Callable[[Stop], float | None], falls: bool) -> Value:
    """How much more motion error has risen on the way to `first` than to `second` where both have come equally far:
    where the one that goes less far ends.
    """

    def value(seed: Seed) -> float | None:
        ways = [trajectory(seed, arm) for arm in (first, second)]
        ends = [along(way[-1]) for way in ways if len(way) > 1]
        if len(ends) < 2 or None in ends:
            return None
        level = max(e for e in ends if e is not None) if falls else min(e for e in ends if e is not None)
        rises = []
        for way in ways:
            there, base = _at(way, along, level), way[0].measures["motion error"]
            if there is None or base is None:
                return None
            rises.append(there - base)
        return rises[0] - rises[1]

    return value


def _measure(name: str) -> Callable[[Stop], float | None]:
    return lambda stop: stop.measures[name]


def _change(part: str) -> Callable[[Stop], float | None]:
    return lambda stop: stop.change[part]


def _some(measure: str, *signs: tuple[float, str, Mapping[str, Any]]) -> Value:
    """A sum of a measure over rows, on the prompts that all of them have."""

    def value(seed: Seed) -> float | None:
        total = 0.0
        for sign, arm, which in signs:
            row = seed.row(arm, **which)
            number = of_row(on_some(row), seed)[measure] if row else None
            if number is None:
                return None
            total += sign * number
        return total

    return value


def _to_clean(results: Results, arm: str) -> float:
    return float(results.rows[arm]["distance"]["clean"])


def _claim_1(how: str, part: str) -> list[Contrast]:
    p, f = f"P-{how}-LORA", f"F-{how}-LORA"
    more = f"{p} loses more of its motion than {f}"
    return [
        Contrast("equal watermark", (1,), more, _matched(p, f, _measure("watermark"), falls=True)),
        Contrast("equal defect", (1,), more, _matched(p, f, _measure("defect"), falls=True)),
        Contrast(f"equal change of the {part} weights", (1,), more, _matched(p, f, _change(part), falls=False)),
        Contrast(
            "motion error itself, and not its share (P-base has less to lose)",
            (1,),
            f"motion error rises more from P-base to {p} than from F-base to {f}",
            _excess_rise(Results.motion, p, f),
        ),
        Contrast("only clips with an object, before and after", (1,), more, _less(_with_object(p), _with_object(f))),
        Contrast(
            "where they end, not how far they came",
            (1,),
            f"{p} has more motion error than {f}",
            _last(Results.motion, (1, p), (-1, f)),
        ),
        Contrast(
            "images pass the temporal convolutions",
            (1,),
            f"{more}, also with `image_temporal: full`",
            _excess_rise(Results.motion, f"{p}-full", f"{f}-full"),
        ),
    ]


def _laion(measure: str, positive: str) -> Contrast:
    at_400 = (-1.0, "F-Spa-DIR-LAION", {"step": 400})
    return Contrast("LAION at matched exposure", (4,), positive, _some(measure, (1.0, "F-Spa-DIR", {}), at_400))


CONTRASTS = (
    *_claim_1("Spa", "spatial"),
    *_claim_1("Temp", "temporal"),
    Contrast(
        "sham: low-quality stills",
        (1,),
        "P-Spa-LORA on low-quality stills has more motion error than P-base",
        _last(Results.motion, (1, "P-Spa-LORA-sham"), (-1, "P-base")),
    ),
    Contrast(
        "images pass the temporal convolutions",
        (2,),
        "F-Spa-LORA has more defects than P-Spa-LORA, also with `image_temporal: full`",
        _last(Results.defect, (1, "F-Spa-LORA-full"), (-1, "P-Spa-LORA-full")),
    ),
    Contrast(
        "images pass the temporal convolutions",
        (2,),
        "F-Temp-LORA keeps more than half of F-base's watermark, also with `image_temporal: full`",
        _last(Results.watermark, (1, "F-Temp-LORA-full"), (-0.5, "F-base")),
    ),
    Contrast(
        "sham: low-quality stills",
        (2,),
        "P-Spa-LORA on low-quality stills has less defect than P-base",
        _last(Results.defect, (1, "P-base"), (-1, "P-Spa-LORA-sham")),
    ),
    Contrast(
        "how far they came, not where they end",
        (2,),
        "defects fall more from P-base to P-Spa-LORA than from F-base to F-Spa-LORA",
        _last(Results.defect, (1, "P-base"), (-1, "P-Spa-LORA"), (-1, "F-base"), (1, "F-Spa-LORA")),
    ),
    Contrast(
        "equal defect",
        (3,),
        "F-Spa-Temp-DIR loses more of its motion than F-Spa-DIR",
        _matched("F-Spa-Temp-DIR", "F-Spa-DIR", _measure("defect"), falls=True),
    ),
    Contrast(
        "equal change of the spatial weights",
        (3,),
        "F-Spa-Temp-DIR loses more of its motion than F-Spa-DIR",
        _matched("F-Spa-Temp-DIR", "F-Spa-DIR", _change("spatial"), falls=False),
    ),
    Contrast(
        "which layers: LoRA of full rank",
        (3,),
        "F-Spa-LORA at full rank (attention alone) has more defect than F-Spa-DIR (all spatial layers)",
        _last(Results.defect, (1, "F-Spa-LORA-full-rank"), (-1, "F-Spa-DIR")),
    ),
    Contrast(
        "which layers: LoRA of full rank",
        (3,),
        "F-Spa-LORA at full rank has more motion error than F-Spa-DIR",
        _last(Results.motion, (1, "F-Spa-LORA-full-rank"), (-1, "F-Spa-DIR")),
    ),
    _laion("held-out pairs", "F-Spa-DIR (1000 steps) has more held-out pairs right than F-Spa-DIR-LAION at 400"),
    _laion("seen pairs", "F-Spa-DIR (1000 steps) has more seen pairs right than F-Spa-DIR-LAION at 400"),
    Contrast(
        "distance to clean videos",
        (5,),
        "F-Spa-DIR is nearer to clean videos of the same pairs than F-base",
        _last(_to_clean, (1, "F-base"), (-1, "F-Spa-DIR")),
    ),
    Contrast(
        "a random change as large as F-Spa-DIR's",
        (5,),
        "F-Spa-DIR is farther from the training videos than the random change",
        _last(Results.distance, (1, "F-Spa-DIR"), (-1, "random")),
    ),
    Contrast(
        "a random change as large as F-Spa-DIR's",
        (5,),
        "the random change has more defect than F-Spa-DIR",
        _last(Results.defect, (1, "random"), (-1, "F-Spa-DIR")),
    ),
    Contrast(
        "sham: low-quality stills",
        (3, 5),
        "F-Spa-DIR on low-quality stills has less defect than F-base",
        _last(Results.defect, (1, "F-base"), (-1, "F-Spa-DIR-sham")),
    ),
    Contrast(
        "sham: low-quality stills",
        (5,),
        "F-Spa-DIR on low-quality stills is farther from the training videos than F-base",
        _last(Results.distance, (1, "F-Spa-DIR-sham"), (-1, "F-base")),
    ),
    *(
        Contrast(
            "the frame rate as a switch",
            (),
            f"{base}, told 100 frames a second, has less {measure} than told 8",
            _some(measure, (1.0, base, {}), (-1.0, base, {"fps": 100})),
        )
        for base in ("F-base", "P-base")
        for measure in ("defect", "motion error")
    ),
    *(
        Contrast(
            "not averaged weights",
            (),
            f"{name} without averaging has more {measure}",
            _some(measure, (1.0, name, {"weights": "raw"}), (-1.0, name, {})),
        )
        for name in ("F-Spa-DIR", "F-Spa-LORA", "P-Spa-LORA", "F-Spa-Temp-DIR")
        for measure in ("defect", "motion error")
    ),
)


def look(seeds: Sequence[Seed]) -> list[Seen]:
    """Every contrast."""
    return [
        Seen(contrast, {seed.number: value for seed in seeds if (value := contrast.of(seed)) is not None})
        for contrast in CONTRASTS
    ]


def dominating(seeds: Sequence[Seed]) -> dict[str, list[int]]:
    """F variants with less defect and less motion error than F-Spa-DIR, the paper's choice, and in which seeds."""
    found: dict[str, list[int]] = {}
    for seed in seeds:
        results = seed.results
        for name in (arm.name for arm in ROWS if BY_NAME[arm.name].start == "F-base" and arm.name != "F-Spa-DIR"):
            if results.defect(name) < results.defect("F-Spa-DIR") and results.motion(name) < results.motion(
                "F-Spa-DIR"
            ):
                found.setdefault(name, []).append(seed.number)
    return found

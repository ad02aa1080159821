"""What a contrast is, and how its number is read from a seed's rows; which there are is said in `beside`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from .. import statistics
from .claims import Results
from .evidence import Seed, on_some
from .tables import Stop, of_row, trajectory

Value = Callable[[Seed], float | None]
Speaks = Literal["for", "against"]


@dataclass(frozen=True)
class Contrast:
    """`of` a seed is None where a row is missing, or where there is nothing to compare. `speaks`: whether a positive
    number speaks for the claims or against them; None where it only explains.
    """

    topic: str
    claims: tuple[int, ...]
    positive: str  # what a positive number means
    of: Value
    speaks: Speaks | None = None
    needs: str | None = None  # a model that must still know what it knew, or there is nothing to compare


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


def share(before: float, after: float) -> float:
    """Of what there was to lose, as claim 1 counts motion: 0 is none, 1 all."""
    return (after - before) / (1 - before) if before < 1 else 0.0


def last(measure: Callable[[Results, str], float], *signs: tuple[float, str]) -> Value:
    """A sum of an averaged last row's measure over models."""

    def value(seed: Seed) -> float | None:
        if any(arm not in seed.results.rows for _, arm in signs):
            return None
        return sum(sign * measure(seed.results, arm) for sign, arm in signs)

    return value


def excess_rise(measure: Callable[[Results, str], float], p: str, f: str) -> Value:
    """How much more a measure rises from P-base to `p` than from F-base to `f`."""
    return last(measure, (1, p), (-1, "P-base"), (-1, f), (1, "F-base"))


def lost(arm: str) -> Value:
    """The share of its base's motion that a model has lost."""

    def value(seed: Seed) -> float | None:
        base = f"{arm[0]}-base"
        if not {arm, base} <= seed.results.rows.keys():
            return None
        return share(seed.results.motion(base), seed.results.motion(arm))

    return value


def lost_with_object(arm: str) -> Value:
    """The same over the clips in which both models show one object."""

    def value(seed: Seed) -> float | None:
        rows = [seed.results.rows.get(name) for name in (f"{arm[0]}-base", arm)]
        if None in rows:
            return None
        speeds, errors = ([row[name] for row in rows if row] for name in ("speed", "motion_error"))
        there = [
            pair for *pair, one, other in zip(*errors, *speeds, strict=True) if one is not None and other is not None
        ]
        return share(*np.mean(there, axis=0).tolist()) if there else None

    return value


def less(first: Value, second: Value) -> Value:
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


def matched(first: str, second: str, along: Callable[[Stop], float | None], falls: bool) -> Value:
    """How much larger a share of its motion is lost on the way to `first` than to `second` where both have come equally
    far: where the one that goes less far ends.
    """

    def value(seed: Seed) -> float | None:
        ways = [trajectory(seed, arm) for arm in (first, second)]
        ends = [along(way[-1]) for way in ways if len(way) > 1]
        if len(ends) < 2 or None in ends:
            return None
        level = max(e for e in ends if e is not None) if falls else min(e for e in ends if e is not None)
        shares = []
        for way in ways:
            there, base = _at(way, along, level), way[0].measures["motion error"]
            if there is None or base is None:
                return None
            shares.append(share(base, there))
        return shares[0] - shares[1]

    return value


def by_measure(name: str) -> Callable[[Stop], float | None]:
    return lambda stop: stop.measures[name]


def by_change(part: str) -> Callable[[Stop], float | None]:
    return lambda stop: stop.change[part]


def on_some_prompts(measure: str, *signs: tuple[float, str, Mapping[str, Any]]) -> Value:
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

"""The analogues of the paper's Tables 3 and 4, from rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..picture import DEFECTS
from .arms import BASES, BY_NAME, CONTROLS, LATER, ROWS, SNAPSHOTS
from .claims import CLAIMS, Part, Results, _clips  # claims.py is fixed, names included
from .evidence import Seed, direction, on_some, speed, without_object
from .gates import share_right
from .rows import Row


@dataclass(frozen=True)
class Measure:
    """A column: how it is read from a row, and which way is better (None: it is context, not a score)."""

    name: str
    of: Callable[[Results, str], float | None]
    better: str | None
    all_prompts: bool = False  # not to be had of some prompts alone


def _of_row(read: Callable[[Row], float | None]) -> Callable[[Results, str], float | None]:
    return lambda results, arm: read(results.rows[arm])


MEASURES = (
    Measure("defect", Results.defect, "lower"),
    Measure("watermark", Results.watermark, "lower"),
    Measure("motion error", Results.motion, "lower"),
    Measure("direction", _of_row(direction), "higher"),
    Measure("seen pairs", lambda r, arm: r.composition(arm, held_out=False), "higher"),
    Measure("held-out pairs", lambda r, arm: r.composition(arm, held_out=True), "higher"),
    Measure("distance", Results.distance, None, all_prompts=True),
    Measure("speed", _of_row(speed), None),
    Measure("no object", _of_row(without_object), "lower"),
)

# What the paper's Table 3 prints: DOVER's aesthetic and technical score, of 100.
TABLE_3 = {
    "P-base": (34.32, 42.69),
    "F-base": (46.55, 51.76),
    "P-Spa-LORA": (78.25, 72.74),
    "F-Spa-LORA": (77.97, 59.60),
    "P-Temp-LORA": (77.40, 54.85),
    "F-Temp-LORA": (66.26, 50.32),
    "F-Spa-DIR": (82.57, 70.35),
    "F-Temp-DIR": (82.77, 65.34),
    "F-Spa-Temp-DIR": (83.59, 67.75),
    "F-Spa-Temp-LORA": (80.44, 63.61),
    "F-Spa-DIR-LAION": (67.83, 54.26),
}
# Pairs of the paper's Table 4, and the share of votes for the motion of the first.
TABLE_4 = {("F-Spa-LORA", "P-Spa-LORA"): 87, ("F-Temp-LORA", "P-Temp-LORA"): 73, ("F-Spa-DIR", "F-Spa-Temp-DIR"): 67}
# The paper shows none of its bases; without them nobody could say what finetuning did.
COMPARED: dict[tuple[str, str], int | None] = {("F-base", "P-base"): None, **TABLE_4}
STEPS = (*SNAPSHOTS, 1000)


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, their standard deviation (None for one seed), and how many they are."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


def of_row(row: Row, seed: Seed) -> dict[str, float | None]:
    """All measures of a row; those that need all prompts are None where it has some."""
    results = Results({"": row}, seed.scale)
    return {m.name: None if m.all_prompts and "distance" not in row else m.of(results, "") for m in MEASURES}


Cells = Mapping[str, float | None]
Table = dict[str, dict[str, Spread]]


def _table(seeds: Sequence[Seed], read: Callable[[Row, Seed], Cells]) -> Table:
    """Mean and spread of what is read from a row, of every model that any seed has on all prompts."""
    table: Table = {}
    for name in (*(arm.name for arm in (*BASES[1:], *ROWS, *CONTROLS, *LATER)), "random"):
        columns: dict[str, list[float]] = {}
        for seed in seeds:
            if name in seed.results.rows:
                for column, value in read(seed.results.rows[name], seed).items():
                    if value is not None:
                        columns.setdefault(column, []).append(value)
        if columns:
            table[name] = {column: Spread.of(values) for column, values in columns.items()}
    return table


def table_3(seeds: Sequence[Seed]) -> Table:
    """Of every measure."""
    return _table(seeds, of_row)


def apart(seeds: Sequence[Seed]) -> Table:
    """What the measures put together or leave out: each defect by itself, not cut to 0..1; held-out pairs that also
    move as the prompt says; how far the weights are from the base's, as a share of their norm.
    """

    def read(row: Row, seed: Seed) -> Cells:
        shares = [seed.scale.shares(clip) for clip in _clips(row)]
        there = {name: [one[name] for one in shares if not np.isnan(one[name])] for name in DEFECTS}
        means = {name: float(np.mean(values)) if values else None for name, values in there.items()}
        flags = zip(*(row["right"][name] for name in ("colour", "shape", "direction")), strict=True)
        together = {**row, "right": {"all": "".join(str(int(set(of_clip) == {"1"})) for of_clip in flags)}}
        change = {f"{part} change": value for part, value in row["change"].items()}
        return {**means, "all right, held-out": share_right(together, "all", True), **change}

    return _table(seeds, read)


def by_step(seeds: Sequence[Seed]) -> dict[str, list[float | None]]:
    """The mean over seeds of every part of every claim, had the finetunes ended at each of STEPS, on the prompts that
    snapshots have; None where a measure needs all prompts.
    """

    def results(seed: Seed, step: int) -> Results:
        rows = {arm.name: seed.row(arm.name) if arm in BASES else seed.row(arm.name, step) for arm in (*BASES, *ROWS)}
        return Results({name: on_some(row) for name, row in rows.items() if row}, seed.scale)

    stops = [[results(seed, step) for seed in seeds] for step in STEPS]

    def mean(part: Part, stop: list[Results]) -> float | None:
        try:
            return float(np.mean([part.of(one) for one in stop])) if stop else None
        except KeyError:  # no such snapshot, or a distance, which some prompts are too few for
            return None

    return {
        f"{claim.number}{letter} {part.says}": [mean(part, stop) for stop in stops]
        for claim in CLAIMS
        for letter, part in zip("ab", claim.parts, strict=False)
    }


@dataclass(frozen=True)
class Preference:
    """How often the first model's clip moves better than the second's on the same prompt and noise, how often worse;
    `tie` is the difference in motion error up to which they are called equal. `ahead`: how often it moves better by
    however little.
    """

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    ahead: int
    tie: float
    paper: int | None

    @property
    def clips(self) -> int:
        return self.wins + self.ties + self.losses


def table_4(seeds: Sequence[Seed]) -> list[Preference]:
    """Empty for fewer than two seeds: a tie is what one model's own seeds differ by."""
    if len(seeds) < 2:
        return []
    preferences = []
    for (first, second), paper in COMPARED.items():
        a, b = (np.array([seed.results.rows[arm]["motion_error"] for seed in seeds]) for arm in (first, second))
        tie = float(np.mean([_seed_to_seed(a), _seed_to_seed(b)]))
        gap = b - a  # the lower error moves better
        wins, losses = int((gap > tie).sum()), int((gap < -tie).sum())
        counts = (wins, gap.size - wins - losses, losses, int((gap > 0).sum()))
        preferences.append(Preference(first, second, *counts, tie, paper))
    return preferences


def _seed_to_seed(errors: np.ndarray) -> float:
    """Standard deviation over seeds of a prompt's error `[seeds, prompts]`, root mean square over the prompts."""
    return float(np.sqrt(errors.var(axis=0, ddof=1).mean()))


@dataclass(frozen=True)
class Stop:
    """A point of a finetune's way, on the prompts that every stop has; `change` of the weights by part."""

    step: int
    measures: Mapping[str, float | None]
    change: Mapping[str, float]


@lru_cache(512)
def trajectory(seed: Seed, arm: str) -> list[Stop]:
    """From the base (step 0) to the end."""
    base = seed.row(BY_NAME[arm].start or "")
    stops = [] if base is None else [Stop(0, of_row(on_some(base), seed), {"spatial": 0.0, "temporal": 0.0})]
    mine = [row for row in seed.rows if (row["arm"], row["weights"], row["fps"]) == (arm, "ema", 8)]
    for row in sorted(mine, key=lambda row: row["step"]):
        stops.append(Stop(row["step"], of_row(on_some(row), seed), row["change"]))
    return stops


def mean_trajectory(seeds: Sequence[Seed], arm: str) -> list[tuple[int, float, float]]:
    """(step, defect, motion error), over the seeds that have the step."""
    points: dict[int, list[tuple[float, float]]] = {}
    for seed in seeds:
        for stop in trajectory(seed, arm):
            defect, motion = stop.measures["defect"], stop.measures["motion error"]
            assert defect is not None
            assert motion is not None
            points.setdefault(stop.step, []).append((defect, motion))
    return [(step, *np.mean(values, axis=0).tolist()) for step, values in sorted(points.items())]

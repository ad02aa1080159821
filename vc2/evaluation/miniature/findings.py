"""What page and numbers of a report both show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import statistics
from .beside import dominating, look, undominated
from .claims import ALPHA, CLAIMS, LEAST_GAIN
from .contrasts import Seen
from .evidence import ASKED_LATER, Seed
from .tables import Preference, Table, apart, by_step, table_3, table_4

QUARTER = CLAIMS[2].parts[0].margin or 0.0  # claim 3a's
RIGHT = 0.8  # share of seen pairs: a model with less has lost what it knew, and says nothing of what it was asked


@dataclass(frozen=True)
class Findings:
    """Of the seeds that count. Tables are empty without any."""

    table_3: Table
    apart: Table
    by_step: dict[str, list[float | None]]
    table_4: list[Preference]
    beside: list[Seen]
    dominating: dict[str, list[int]]
    undominated: dict[str, int]
    as_equal: list[str]  # finetunes of F whose defect would pass claim 3's test of being equal to F-Spa-DIR's

    @classmethod
    def of(cls, seeds: Sequence[Seed]) -> Findings:
        rest = (dominating(seeds), undominated(seeds), as_equal(seeds))
        return cls(table_3(seeds), apart(seeds), by_step(seeds), table_4(seeds), look(seeds), *rest)

    def mean(self, model: str, measure: str) -> float | None:
        """Over the seeds that have the model; also of what `apart` has."""
        cell = (self.table_3.get(model, {}) | self.apart.get(model, {})).get(measure)
        return cell.mean if cell else None

    def seen(self, positive: str, topic: str = "") -> Seen | None:
        """The contrast whose words, and topic, begin so; None where no seed has it. Raises ValueError where not one
        begins so.
        """
        [found] = [
            one
            for one in self.beside
            if one.contrast.positive.startswith(positive) and one.contrast.topic.startswith(topic)
        ]
        return found if found.values else None

    def collapsed(self, model: str | None) -> bool:
        """Whether a model no longer knows what the videos showed."""
        known = self.mean(model, "seen pairs") if model else None
        return known is not None and known < RIGHT

    @property
    def quarter(self) -> float | None:
        """Claim 3's quarter in defect: that of what the better one takes off the base."""
        table = self.table_3
        if not table:
            return None
        base, *both = (table[name]["defect"].mean for name in ("F-base", "F-Spa-DIR", "F-Spa-Temp-DIR"))
        return QUARTER * max(base - min(both), LEAST_GAIN)


def as_equal(seeds: Sequence[Seed]) -> list[str]:
    """Registered finetunes of F, F-Spa-Temp-DIR left out, whose defect is equal to F-Spa-DIR's by the test of 3a."""
    found = []
    left_out = ("F-base", "F-Spa-DIR", "F-Spa-Temp-DIR", *ASKED_LATER)
    for name in seeds[0].results.rows if seeds else ():
        if not name.startswith("F-") or name in left_out:
            continue
        shares = []
        for results in (seed.results for seed in seeds if name in seed.results.rows):
            one, choice, base = (results.defect(arm) for arm in (name, "F-Spa-DIR", "F-base"))
            shares.append((one - choice) / max(base - min(one, choice), LEAST_GAIN))
        if statistics.equivalence(shares, QUARTER) < ALPHA:
            found.append(name)
    return found

"""What the report says of each claim: the tests' outcome, unless a gate that the claim needs has failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np

from .. import statistics
from .claims import CLAIMS, Claim, Part, decide
from .evidence import OF_ONE_COMMIT, REGISTERED_SEEDS, Evidence
from .gates import NEEDS, TOLERATED

NOT_RUN = "not run yet"
AS_CLAIMED, OTHER_WAY, OPEN = "as claimed", "the other way", "open"
SKETCH = "not decided"
UNTESTABLE = "untestable"


@dataclass(frozen=True)
class Tested:
    """A part of a claim: a value a seed, their mean, its 95 % t-interval (None for one seed), the p-value of "it does
    not hold", and that of "it is not the other way", neither corrected.
    """

    part: Part
    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    p_value: float
    p_against: float

    @classmethod
    def of(cls, part: Part, values: Sequence[float]) -> Tested:
        interval = statistics.interval(values) if len(values) > 1 else None
        mean = float(np.mean(values))
        return cls(part, tuple(values), mean, interval, part.p_value(values), part.p_against(values))

    @property
    def in_favour(self) -> int:
        """Seeds in which the part holds."""
        if self.part.margin is not None:
            return sum(abs(value) <= self.part.margin for value in self.values)
        return sum(value > 0 for value in self.values)

    @property
    def stands(self) -> str:
        """What the interval says by itself."""
        if self.interval is None:
            return OPEN
        (low, high), margin = self.interval, self.part.margin
        if margin is None:
            return AS_CLAIMED if low > 0 else OTHER_WAY if high < 0 else OPEN
        within, beyond = -margin <= low and high <= margin, low > margin or high < -margin
        return AS_CLAIMED if within else OTHER_WAY if beyond else OPEN


@dataclass(frozen=True)
class Verdict:
    """`p_value` and `p_against`, of the opposite, are corrected by Holm over the claims; None where nothing was run."""

    claim: Claim
    verdict: str
    why: str
    parts: tuple[Tested, ...]
    p_value: float | None
    p_against: float | None = None


def failed_gates(evidence: Evidence) -> dict[str, list[int]]:
    """Of the seeds' gates those that failed at all, and in which seeds."""
    failed: dict[str, list[int]] = {}
    for seed in evidence.seeds:
        for gate in seed.gates():
            if not gate.passed:
                failed.setdefault(gate.name, []).append(seed.number)
    return failed


def verdicts(evidence: Evidence) -> list[Verdict]:
    """Of all claims, in their order."""
    if not evidence.seeds:
        return [Verdict(claim, NOT_RUN, "no seed is finished", (), None) for claim in CLAIMS]
    failed = failed_gates(evidence)
    return [
        Verdict(
            outcome.claim,
            *_verdict(evidence, failed, outcome.claim.number, outcome.verdict),
            tuple(Tested.of(*both) for both in zip(outcome.claim.parts, outcome.values, strict=True)),
            outcome.p_value,
            outcome.p_against,
        )
        for outcome in decide([seed.results for seed in evidence.seeds])
    ]


def _verdict(evidence: Evidence, failed: Mapping[str, list[int]], number: int, tested: str) -> tuple[str, str]:
    """The verdict, and why it is not the tests' one ("" where it is)."""
    if evidence.kind not in OF_ONE_COMMIT:
        return SKETCH, "a sketch decides nothing" if evidence.kind == "sketch" else "pilot seeds do not count"
    if closed := [gate["name"] for gate in evidence.world_gates if not gate["passed"]]:
        return UNTESTABLE, f"gate of the world failed: {', '.join(closed)}"
    for name in NEEDS[number]:
        seeds = failed.get(name, [])
        if len(seeds) > TOLERATED * len(evidence.seeds):
            return UNTESTABLE, f"gate failed: {name}, in {_of_seeds(seeds)} of {len(evidence.seeds)} finished"
    return tested, ""


def in_a_sentence(evidence: Evidence, decided: Sequence[Verdict]) -> str:
    """How it stands, for the repository's front page."""
    done = len(evidence.seeds)
    if not done:
        return "no seed counted yet"
    if done < REGISTERED_SEEDS:
        return f"{done} of {REGISTERED_SEEDS} seeds counted, so nothing is decided yet"
    of_each: dict[str, list[str]] = {name: [] for name in ("confirmed", "refuted", "undecided", UNTESTABLE)}
    for verdict in decided:
        number, part = verdict.claim.number, refuting(verdict)
        of_each[verdict.verdict].append(f"{number} by its part {number}{part}" if part else str(number))
    counts = [f"{len(found)} {name} ({', '.join(found)})" for name, found in of_each.items() if found]
    return f"of its {len(decided)} claims, as put for a drawn world, {', '.join(counts)}, over {done} training seeds"


def refuting(verdict: Verdict) -> str:
    """The letter of the part that speaks most against a refuted claim, "" for another verdict."""
    if verdict.verdict != "refuted":
        return ""
    against = [part.p_against for part in verdict.parts]
    return ascii_lowercase[against.index(min(against))]


def in_words(verdict: Verdict) -> str:
    """It is of the claim as it was put for this world, and one part suffices to refute it."""
    part = refuting(verdict)
    return f"{verdict.verdict} here, by {verdict.claim.number}{part}" if part else verdict.verdict


def _of_seeds(numbers: Sequence[int]) -> str:
    return f"seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"

"""The five claims that docs/miniature/expectations.md fixes, as what is computed from the rows.

A claim has parts, each a number a seed; it is confirmed where all of them are as claimed, and refuted where one of them
is significantly the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import statistics
from ..picture import DEFECTS, Scale
from .gates import FPS, share_right
from .rows import Row

ALPHA = 0.05
PROMPTS = 96


@dataclass(frozen=True)
class Results:
    """A seed's last averaged row of each arm, on all prompts."""

    rows: Mapping[str, Row]
    scale: Scale

    @classmethod
    def of(cls, rows: Sequence[Row], scale: Scale) -> Results:
        wanted = (r for r in rows if r["weights"] == "ema" and r["fps"] == FPS and r["prompts"] == PROMPTS)
        return cls({row["arm"]: row for row in wanted}, scale)

    def motion(self, arm: str) -> float:
        """Mean motion error: 0 is a steady movement, 1 a still picture."""
        return float(np.mean(self.rows[arm]["motion_error"]))

    def defect(self, arm: str) -> float:
        """Mean of the five defects' shares, over clips: 0 is clean, 1 is the training videos."""
        return float(np.mean([self.scale.defect(measured) for measured in _clips(self.rows[arm])]))

    def watermark(self, arm: str) -> float:
        """The watermark's opacity as a share of the training videos'."""
        return float(np.mean([self.scale.shares(measured)["watermark"] for measured in _clips(self.rows[arm])]))

    def composition(self, arm: str, held_out: bool) -> float:
        """Share of the clips with the right colour and the right shape, of held-out pairs or of seen ones."""
        row = self.rows[arm]
        both = zip(row["right"]["colour"], row["right"]["shape"], strict=True)
        flags = "".join(str(int(colour == shape == "1")) for colour, shape in both)
        return share_right({**row, "right": {"both": flags}}, "both", held_out)

    def distance(self, arm: str) -> float:
        """Kernel distance to the training videos."""
        return float(self.rows[arm]["distance"]["low"])


def _clips(row: Row) -> list[dict[str, float]]:
    columns = [[np.nan if value is None else value for value in row["defects"][name]] for name in DEFECTS]
    return [dict(zip(DEFECTS, values, strict=True)) for values in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Part:
    """`of` a seed is above 0 if the part holds; or with a `margin`, within it of 0."""

    says: str
    of: Callable[[Results], float]
    margin: float | None = None

    def p_value(self, values: Sequence[float]) -> float:
        """Of "it does not hold": two-sided where a direction is claimed, so that the other one can be refuted; 1 where
        the mean lies on the other side.
        """
        if self.margin is not None:
            return statistics.equivalence(values, self.margin)
        return statistics.sign_flip(values) if np.mean(values) > 0 else 1.0

    def p_against(self, values: Sequence[float]) -> float:
        """Of "it is not the other way", one-sided."""
        if self.margin is None:
            return statistics.sign_flip(values, "less")
        # Which side of the margins is looked at is not known before: both count.
        away = np.asarray(values) * (np.sign(np.mean(values)) or 1.0) - self.margin
        return min(1.0, 2 * statistics.sign_flip(away, "greater"))


@dataclass(frozen=True)
class Claim:
    number: int
    says: str
    parts: tuple[Part, ...]


def _lost(r: Results, arm: str) -> float:
    """The share of its base's motion that an arm has lost: 0 is none, 1 all; below 0 it has gained. A base that stands
    still has nothing to lose, and one that hardly moves less than another.
    """
    before, after = r.motion(f"{arm[0]}-base"), r.motion(arm)
    return (after - before) / (1 - before) if before < 1 else 0.0


def _harm(how: str) -> Callable[[Results], float]:
    return lambda r: _lost(r, f"P-{how}-LORA") - _lost(r, f"F-{how}-LORA")


LEAST_GAIN = 0.2  # in defect, of which a share is still a share of something


def _relative_defect(r: Results) -> float:
    """F-Spa-DIR's defect less F-Spa-Temp-DIR's, as a share of what the better of them takes off the base's."""
    spatial, both, base = (r.defect(arm) for arm in ("F-Spa-DIR", "F-Spa-Temp-DIR", "F-base"))
    return (spatial - both) / max(base - min(spatial, both), LEAST_GAIN)


CLAIMS = (
    Claim(
        1,
        "Finetuned by LoRA, a partially trained base loses more of its motion than a fully trained one.",
        (
            Part("spatial LoRA: P loses a larger share of its base's motion than F", _harm("Spa")),
            Part("temporal LoRA: P loses a larger share of its base's motion than F", _harm("Temp")),
        ),
    ),
    Claim(
        2,
        "A fully trained base holds on to its picture: spatial LoRA leaves F more defects than P, and temporal LoRA its"
        " watermark, which training theta_S directly takes away.",
        (
            Part(
                "F-Spa-LORA has more defects than P-Spa-LORA",
                lambda r: r.defect("F-Spa-LORA") - r.defect("P-Spa-LORA"),
            ),
            Part(
                "F-Temp-LORA keeps more than half of F-base's watermark, and F-Spa-DIR less",
                # Where nothing takes the watermark away, it is no merit to keep it.
                lambda r: min(
                    r.watermark("F-Temp-LORA") - 0.5 * r.watermark("F-base"),
                    0.5 * r.watermark("F-base") - r.watermark("F-Spa-DIR"),
                ),
            ),
        ),
    ),
    Claim(
        3,
        "Training theta_S directly gives the picture of training all, and better motion.",
        (
            Part("defects of F-Spa-DIR and F-Spa-Temp-DIR are equal within a quarter", _relative_defect, 0.25),
            Part(
                "motion error of F-Spa-Temp-DIR is larger than F-Spa-DIR's",
                lambda r: r.motion("F-Spa-Temp-DIR") - r.motion("F-Spa-DIR"),
            ),
        ),
    ),
    Claim(
        4,
        "Pictures of new pairs teach videos of them: JourneyDB above LAION on held-out pairs, equal on seen ones.",
        (
            Part(
                "held-out pairs: F-Spa-DIR has more of them right than F-Spa-DIR-LAION",
                lambda r: r.composition("F-Spa-DIR", True) - r.composition("F-Spa-DIR-LAION", True),
            ),
            Part(
                "seen pairs: equal within ten points",
                lambda r: r.composition("F-Spa-DIR", False) - r.composition("F-Spa-DIR-LAION", False),
                0.1,
            ),
        ),
    ),
    Claim(
        5,
        "A distance to the training videos grows while the picture gets better.",
        (
            Part(
                "F-Spa-DIR is farther from the training videos than F-base",
                lambda r: r.distance("F-Spa-DIR") - r.distance("F-base"),
            ),
            Part("defects of F-Spa-DIR are below F-base's", lambda r: r.defect("F-base") - r.defect("F-Spa-DIR")),
        ),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """Of a claim: "confirmed", "refuted" or "undecided"; each part's values over seeds, and the corrected p-values of
    "it does not hold" and of "no part is the other way".
    """

    claim: Claim
    verdict: str
    values: tuple[tuple[float, ...], ...]
    p_value: float
    p_against: float


def decide(seeds: Sequence[Results]) -> list[Outcome]:
    """Holm's correction is over the claims, a claim's p-value being the largest of its parts'; and once more over all
    that could be refuted, a claim being refuted by the smallest of its parts', for which it pays with their number.
    """
    values = [[[part.of(seed) for seed in seeds] for part in claim.parts] for claim in CLAIMS]
    per_claim = [(claim.parts, of_parts) for claim, of_parts in zip(CLAIMS, values, strict=True)]
    in_favour = statistics.holm([max(p.p_value(v) for p, v in zip(*both, strict=True)) for both in per_claim])
    against = statistics.holm(
        [min(1.0, len(both[0]) * min(p.p_against(v) for p, v in zip(*both, strict=True))) for both in per_claim]
    )
    outcomes = []
    for claim, of_parts, p, q in zip(CLAIMS, values, in_favour, against, strict=True):
        verdict = "confirmed" if p < ALPHA else "refuted" if q < ALPHA else "undecided"
        outcomes.append(Outcome(claim, verdict, tuple(tuple(v) for v in of_parts), p, q))
    return outcomes

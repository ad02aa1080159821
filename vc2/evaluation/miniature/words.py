"""Sentences of the report that depend on what came out; those on single claims are in `notes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .. import statistics
from .contrasts import Seen
from .evidence import REGISTERED_SEEDS, Seed
from .findings import Findings
from .plots import bracketed, signed
from .tables import TABLE_3, Preference
from .verdicts import AS_CLAIMED, OPEN, OTHER_WAY, Tested, Verdict, in_words

YES, NO = "yes", "no, the other way"
FOR, AGAINST = "for", "against"
STANDS = {AS_CLAIMED: "is as claimed", OTHER_WAY: "goes the other way", OPEN: "is open"}
HEARD = 0.4  # share of clips that follow direction words
HOW = {"spatial LoRA": "Spa", "temporal LoRA": "Temp"}


def reading(seen: Seen, findings: Findings) -> str:
    """A contrast in a word or two: what its interval leaves open."""
    if findings.collapsed(seen.contrast.needs):
        return f"nothing: {seen.contrast.needs} has lost what it knew"
    if seen.interval is None:
        return "\N{EN DASH}"
    low, high = seen.interval
    if low == high == 0:
        return "equal in every seed"
    return by_sign(seen.interval, YES, NO, OPEN)


def speaking(seen: Seen, findings: Findings) -> str:
    """Whether a contrast's answer speaks for its claims or against them, "" for neither."""
    speaks, said = seen.contrast.speaks, reading(seen, findings)
    if speaks is None or said not in (YES, NO):
        return ""
    return FOR if (speaks == FOR) == (said == YES) else AGAINST


def by_sign(interval: tuple[float, float], above: str, below: str, neither: str) -> str:
    """The word for an interval that lies above 0, below it, or on both sides."""
    low, high = interval
    return above if low > 0 else below if high < 0 else neither


def with_interval(seen: Seen) -> str:
    """Mean and interval."""
    assert seen.mean is not None
    return signed(seen.mean) + (f" {bracketed(seen.interval)}" if seen.interval else "")


def of_seeds(seen: Seen) -> str:
    """Which seeds a contrast was made of."""
    *most, last = map(str, seen.values)
    return f"seeds {', '.join(most)} and {last}" if most else f"seed {last}"


def shares(pair: Preference) -> str:
    """Of two models' clips how many move better, and how many worse."""
    won, lost = (round(100 * count / pair.clips) for count in (pair.wins, pair.losses))
    return f"{won}\N{NO-BREAK SPACE}% against {lost}\N{NO-BREAK SPACE}%"


@dataclass(frozen=True)
class Words:
    """Of all verdicts and findings. `real`: the motion error of ground truth, where it was measured."""

    seeds: Sequence[Seed]
    decided: Sequence[Verdict]
    findings: Findings
    voted: bool = False
    real: float | None = None

    def number(self, model: str, measure: str) -> str:
        value = self.findings.mean(model, measure)
        return "\N{EN DASH}" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")

    def percent(self, model: str, measure: str) -> str:
        value = self.findings.mean(model, measure)
        return "\N{EN DASH}" if value is None else f"{100 * value:.0f}\N{NO-BREAK SPACE}%"

    def part(self, name: str) -> Tested:
        """By its name, such as 1a."""
        return self.decided[int(name[0]) - 1].parts["ab".index(name[1])]

    def by_step(self, name: str) -> list[float | None]:
        """What the part would be had finetuning ended earlier."""
        return self.findings.by_step[f"{name} {self.part(name).part.says}"]

    def hears(self, model: str) -> bool:
        """Whether it follows direction words, of which chance follows a quarter."""
        follows = self.findings.mean(model, "direction")
        return follows is not None and follows >= HEARD

    def part_of(self, name: str, seen: Seen) -> Tested:
        """The same of those seeds alone that a contrast is of."""
        part = self.part(name)
        of_seeds = zip(self.seeds, part.values, strict=True)
        return Tested.of(part.part, [value for seed, value in of_seeds if seed.number in seen.values])

    def ends_better(self, how: str) -> Preference | None:
        """F's finetune against P's, where F's ends with less motion error."""
        seen = self.findings.seen(f"P-{how}-LORA has more motion error than F-{how}-LORA")
        pair = self.pair(f"F-{how}-LORA")
        return pair if seen and seen.interval and seen.interval[0] > 0 else None

    def pair(self, first: str) -> Preference | None:
        """Of the analogue of Table 4, by its first model."""
        return next((pair for pair in self.findings.table_4 if pair.first == first), None)

    def in_short(self) -> str:
        """Does the recipe work here, and is it for the reason that the paper gives?"""
        return (
            "**In short.** *What the paper recommends*, F-Spa-DIR (all layers learn from poor videos and some clean"
            f" pictures, then the spatial ones from clean pictures alone), {self._recipe()} *Why the paper says that it"
            " works*, that full training couples picture and motion more strongly (claims 1 and 2),"
            f" {self._why()}{self.from_p()}" + ("" if self.voted else " No person has judged a clip.")
        )

    def _recipe(self) -> str:
        def turn(measure: str, show) -> str:
            return f"{show('F-base', measure)} \N{RIGHTWARDS ARROW} {show('F-Spa-DIR', measure)}"

        cleaner = self.part("5b").interval
        gives = "cleans the picture" if cleaner and cleaner[0] > 0 else "gives here"
        cost = [seed.results.motion("F-Spa-DIR") - seed.results.motion("F-base") for seed in self.seeds]
        real = "" if self.real is None else f", of ground truth {self.real:.2f}"
        text = (
            f"{gives}: defect {turn('defect', self.number)} (0 is clean, 1 the poor videos), held-out pairs right"
            f" {turn('held-out pairs', self.percent)}. Motion error, of a still picture 1{real},"
        )
        if len(cost) < 2:
            return f"{text} goes {turn('motion error', self.number)}."
        interval = statistics.interval(cost)
        moves = by_sign(
            interval, "rises a little" if np.mean(cost) < 0.1 else "rises", "falls", "is not told from F-base's"
        )
        change = f"{signed(float(np.mean(cost)))} {bracketed(interval)}"
        return f"{text} {moves}: {turn('motion error', self.number)}, {change}."

    def _why(self) -> str:
        if len(self.seeds) < REGISTERED_SEEDS:
            return f"is not decided before {REGISTERED_SEEDS} seeds."
        both = [in_words(one) for one in self.decided[:2]]
        if both == ["confirmed", "confirmed"]:
            return "shows here too."
        shows = "is confirmed in part" if "confirmed" in both else "is not confirmed here"
        stands = {name: STANDS[self.part(name).stands] for name in ("1a", "2a", "1b", "2b")}
        return (
            f"{shows}: claim 1 is {both[0]}, claim 2 is {both[1]}. With spatial LoRA, motion {stands['1a']} (1a) and"
            f" the picture {stands['2a']} (2a); with temporal LoRA, motion {stands['1b']} (1b) and the watermark"
            f" {stands['2b']} (2b)."
        )

    def from_p(self) -> str:
        """How the recipe does from the other base, where that was asked in more than one seed."""
        asked = self.findings.seen("P-Spa-DIR has more motion error than F-Spa-DIR")
        if not asked or asked.interval is None:
            return ""
        ends = by_sign(asked.interval, "ends worse in motion", "ends better in motion", "is not told from it in motion")
        began = [
            s.results.motion("P-base") - s.results.motion("F-base") for s in self.seeds if s.number in asked.values
        ]
        return (
            f" *Asked later, without a verdict*: begun from P-base, the same second stage {ends}: its motion error"
            f" differs by {with_interval(asked)}, where the bases' differ by {signed(float(np.mean(began)))}"
            f" ({of_seeds(asked)})."
        )

    def aside(self, claim: int) -> str:
        """What must stand beside a verdict, or the verdict is misread."""
        if claim == 1:
            better = {name: pair for name, how in HOW.items() if (pair := self.ends_better(how))}
            if self.part("1a").stands == OTHER_WAY and better:
                each = ", ".join(f"{name} {shares(pair)}" for name, pair in better.items())
                return f"Where they end, clips move better from F than from P, as in Table 4: {each}{self._bases()}"
        if claim == 3 and self.unseen:
            return "3b is too small to be seen"
        return ""

    def _bases(self) -> str:
        """How the bases do, without which nobody can say what finetuning did."""
        pair = self.pair("F-base")
        return f" (bases {shares(pair)})" if pair else ""

    @property
    def unseen(self) -> bool:
        """Whether 3b is far less than the clips of one model differ by from seed to seed."""
        pair = self.pair("F-Spa-DIR")
        return pair is not None and abs(self.part("3b").mean) < pair.tie / 3

    def answered(self) -> str:
        """How many of the questions under the claims have an answer, and how many would by chance."""
        asked = [one for one in self.findings.beside if one.contrast.claims and one.interval is not None]
        answers = sum(reading(one, self.findings) in (YES, NO) for one in asked)
        return (
            f"Of {len(asked)} different questions {answers} are answered; about {0.05 * len(asked):.0f} would be if"
            " nothing differed."
        )

    def rank_correlations(self) -> str:
        """Of the table with the paper's: less defect and its two scores. Looked at afterwards, no test."""
        names = [name for name in TABLE_3 if self.findings.mean(name, "defect") is not None]
        if len(names) < len(TABLE_3):
            return ""
        clean = [-float(self.findings.mean(name, "defect") or 0) for name in names]
        scores = [[TABLE_3[name][which] for name in names] for which in (0, 1)]
        ranks = [stats.rankdata(values) for values in (clean, *scores)]
        apart = np.abs(ranks[0] - (ranks[1] + ranks[2]) / 2)
        two = " and ".join(names[index] for index in np.argsort(-apart, kind="stable")[:2])
        found = " / ".join(signed(float(stats.spearmanr(clean, score).statistic)) for score in scores)
        return (
            f"Over the {len(names)} rows that the paper has, less defect goes with its aesthetic / technical score"
            f" by a rank correlation of {found} (looked at afterwards, no test). Furthest apart in rank are {two}."
        )

    def layers_or_rank(self) -> str:
        """How much of the way from direct training to LoRA is left with adapters of full rank, at the former's rate."""
        left = []
        for measure in ("defect", "motion error"):
            far = self.findings.seen(f"it has more {measure} than F-Spa-DIR")
            near = self.findings.seen(f"it has more {measure} than F-Spa-LORA")
            if not far or not near or not far.interval or far.mean is None or near.mean is None:
                return "Too few seeds to tell layers from rank ([numbers](#claim-3))."
            gap = far.mean - near.mean  # from F-Spa-DIR to F-Spa-LORA
            if gap <= 0 or far.interval[0] <= 0:
                return "It does not lie beyond F-Spa-DIR in both, as F-Spa-LORA may ([numbers](#claim-3))."
            left.append(f"{100 * far.mean / gap:.0f}\N{NO-BREAK SPACE}% of F-Spa-LORA's {measure} above F-Spa-DIR's")
        return (
            f"At full rank {' and '.join(left)} are left, so rank and rate are not all of it; the rest may be that LoRA"
            " reaches the attention layers alone ([numbers](#claim-3))."
        )

    def former(self) -> str:
        """Claims 1 and 2 in their words of before the pilot."""
        starts = {
            "1a": "motion error rises more from P-base to P-Spa-LORA",
            "1b": "motion error rises more from P-base to P-Temp-LORA",
            "2a": "defects fall more from P-base to P-Spa-LORA",
        }
        found = {part: self.findings.seen(start) for part, start in starts.items()}
        numbers = [f"{signed(one.mean)} ({part})" for part, one in found.items() if one and one.mean is not None]
        return f"In the former words they would be {', '.join(numbers)}." if numbers else ""

    def slower(self) -> str:
        """Whether the rate of LoRA is what turned 1a, where it did turn."""
        if not self.seeds or self.part("1a").stands != OTHER_WAY:
            return ""
        asked = self.findings.seen("at a third of the rate P-Spa-LORA")
        if not asked or asked.mean is None:
            return "Which of the two turned the sign of 1a is not known."
        at = f"with LoRA at 1e-3, asked later, 1a is {with_interval(asked)}"
        if asked.interval is None:
            return f"Whether the rate explains why 1a turned is open: {at} in a single seed."
        explains = by_sign(
            asked.interval,
            "The rate explains why 1a turned",
            "The rate alone does not explain why 1a turned",
            "Whether the rate explains why 1a turned is open",
        )
        return f"{explains}: {at} ({of_seeds(asked)})."

    def clean_before(self) -> str:
        """How much of the clean look F-base has already, when it is told that a picture is asked for."""
        asked = self.findings.seen("F-base, told 100 frames a second, has less defect")
        if not asked or not asked.interval or asked.interval[0] <= 0:
            return ""
        return (
            "- **Part of the clean look is in the base already**, which saw clean pictures in one step of eight: told"
            f" their frame rate, F-base has {with_interval(asked).lstrip('+')} less defect without any finetuning"
            f" ([beside](#looked-at-beside)). Held-out pairs are another matter: of them"
            f" {self.percent('F-base', 'held-out pairs')} are right."
        )

    def turning(self) -> str:
        """Which parts that claim a direction had another sign at an earlier stop, on the prompts of all stops."""
        turned, kept = [], 0
        for verdict in self.decided:
            for letter, part in zip("ab", verdict.parts, strict=True):
                name = f"{verdict.claim.number}{letter}"
                *earlier, last = self.by_step(name)
                if part.part.margin is not None or last is None:
                    continue
                if any(value is not None and value * last < 0 for value in earlier):
                    turned.append(name)
                else:
                    kept += 1
        if not turned:
            return f"none of the {kept} that claim a direction has another sign there"
        return f"{', '.join(turned)} {'has' if len(turned) == 1 else 'have'} another sign there"

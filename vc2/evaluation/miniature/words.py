"""Sentences of the report that depend on what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .contrasts import Seen
from .evidence import REGISTERED_SEEDS, Seed
from .findings import Findings
from .plots import bracketed, signed
from .tables import TABLE_3, Preference
from .verdicts import OPEN, Tested, Verdict, refuting

YES, NO = "yes", "no, the other way"
ENOUGH = 4  # seeds for a correlation over them


def reading(seen: Seen, findings: Findings) -> str:
    """A contrast in a word or two: what its interval leaves open."""
    if findings.collapsed(seen.contrast.needs):
        return f"nothing: {seen.contrast.needs} has lost what it knew"
    if seen.interval is None:
        return "\N{EN DASH}"
    low, high = seen.interval
    if low == high == 0:
        return "equal in every seed"
    return _by_sign(seen.interval, YES, NO, OPEN)


def _by_sign(interval: tuple[float, float], above: str, below: str, neither: str) -> str:
    low, high = interval
    return above if low > 0 else below if high < 0 else neither


def verdict(of: Verdict) -> str:
    """As the table has it: it is of the claim as it was put for this world, and one part suffices to refute it."""
    part = refuting(of)
    return f"{of.verdict} here, by {of.claim.number}{part}" if part else of.verdict


@dataclass(frozen=True)
class Words:
    """Of all verdicts and findings."""

    seeds: Sequence[Seed]
    decided: Sequence[Verdict]
    findings: Findings
    voted: bool = False

    def number(self, model: str, measure: str) -> str:
        value = self.findings.mean(model, measure)
        return "\N{EN DASH}" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")

    def percent(self, model: str, measure: str) -> str:
        value = self.findings.mean(model, measure)
        return "\N{EN DASH}" if value is None else f"{100 * value:.0f}\N{NO-BREAK SPACE}%"

    def part(self, name: str) -> Tested:
        """By its name, such as 1a."""
        return self.decided[int(name[0]) - 1].parts["ab".index(name[1])]

    def in_short(self) -> str:
        """Does the recipe work here, and is it for the reason that the paper gives?"""
        better = self.part("5b").interval
        promise = "does here what it promises" if better and better[0] > 0 else "gives here"
        turns = ", ".join(
            f"{what} {show('F-base', measure)} \N{RIGHTWARDS ARROW} {show('F-Spa-DIR', measure)}"
            for what, measure, show in (
                ("defect", "defect", self.number),
                ("held-out pairs right", "held-out pairs", self.percent),
                ("motion error", "motion error", self.number),
            )
        )
        return (
            "**In short.** *What the paper recommends*, F-Spa-DIR (all layers learn from poor videos, then the"
            f" spatial ones from clean pictures), {promise}: {turns} (0 is clean; 1 is a still picture). *Why the"
            " paper says that it works*, that full training ties picture and motion closer together (claims 1 and"
            f" 2), {self._why()}.{self.from_p()}" + ("" if self.voted else " No person has judged a clip.")
        )

    def from_p(self) -> str:
        """Whether the recipe needs the base that it names, where that was asked in more than one seed."""
        asked = self.findings.seen("P-Spa-DIR has more motion error than F-Spa-DIR")
        if not asked or asked.mean is None or asked.interval is None:
            return ""
        found = _by_sign(
            asked.interval,
            "Its second stage needs the full base",
            "Its second stage does better without the full base",
            "Whether its second stage needs the full base is open",
        )
        return (
            f" *{found}*: begun from P-base instead, motion error changes by {signed(asked.mean)}"
            f" {bracketed(asked.interval)} (asked later, {len(asked.values)} seeds)."
        )

    def _why(self) -> str:
        if len(self.seeds) < REGISTERED_SEEDS:
            return f"is not decided before {REGISTERED_SEEDS} seeds"
        both = [one.verdict for one in self.decided[:2]]
        if both == ["refuted", "refuted"]:
            return "is not what happens here: see which of their parts, and what may be to blame"
        if "refuted" in both:
            return "is in part not what happens here"
        return "shows here too" if both == ["confirmed", "confirmed"] else "is open"

    def notes(self, claim: int) -> list[str]:
        """What is to be read with a claim's numbers."""
        if not self.findings.table_3:
            return []
        made = (self._notes_1, self._notes_2, self._notes_3, self._notes_4, self._notes_5)[claim - 1]()
        return [note for note in made if note]

    def _notes_1(self) -> list[str]:
        if self.part("1a").mean >= 0:
            return []
        ends, bases = self._pair("F-Spa-LORA"), self._pair("F-base")
        out = []
        if ends and bases and ends.wins > ends.losses:
            out.append(
                "The paper's Table 4 compares the two finetunes, and not what each has lost. So compared, F-Spa-LORA"
                f" moves better here too ({_shares(ends)}), as its base did ({_shares(bases)}). What goes the other"
                " way is the explanation, that F's motion survives finetuning better."
            )
        out.append(
            "What may be to blame, which no test here asks: only spatial layers read the prompt. F-base follows"
            f" direction words in {self.percent('F-base', 'direction')} of its clips and P-base in"
            f" {self.percent('P-base', 'direction')}, where chance is 25\N{NO-BREAK SPACE}%; so spatial LoRA can"
            f" break in F what P never had (F-Spa-LORA follows them in {self.percent('F-Spa-LORA', 'direction')})."
            " And it goes far: F-Spa-LORA moved the spatial weights by"
            f" {self.number('F-Spa-LORA', 'spatial change')} of their norm, F-Spa-DIR by"
            f" {self.number('F-Spa-DIR', 'spatial change')}."
        )
        return out

    def _notes_2(self) -> list[str]:
        out = [
            "In plain words: with F, adapters on the spatial layers should leave the picture poorer than with P, and"
            " adapters on the temporal layers should leave the watermark."
        ]
        spatial, picture = self.part("1a"), self.part("2a")
        if len(self.seeds) >= ENOUGH and spatial.mean < 0 and picture.mean < 0:
            together = float(stats.pearsonr(spatial.values, picture.values).statistic)
            out.append(
                f"1a and 2a look at the same two models (over seeds they correlate at {signed(together)}):"
                " F-Spa-LORA came further in picture and paid with more motion. Two verdicts, hardly two findings."
            )
        full = self.findings.seen("F-Temp-LORA keeps more than half of F-base's watermark, also")
        if full and full.interval and full.interval[1] < 0 < self.part("2b").mean:
            out.append(
                "**2b turns around** where pictures also pass the temporal convolutions: F-Temp-LORA keeps"
                f" {self.number('F-Temp-LORA-full', 'watermark')} of the watermark instead of"
                f" {self.number('F-Temp-LORA', 'watermark')}. The paper does not say which it does, so 2b tests that"
                " choice as much as the paper."
            )
        return out

    def _notes_3(self) -> list[str]:
        findings, out = self.findings, []
        equal = findings.as_equal
        broke = [name for name in equal if findings.collapsed(name)]
        out.append(
            f"The quarter of 3a is of the defect that finetuning takes off, here ±{findings.quarter:.2f} of defect,"
            f" where F-Spa-DIR has {self.number('F-Spa-DIR', 'defect')} left."
            + (f" That is wide: {len(equal)} other finetunes of F would pass for equal, too" if equal else "")
            + (f", {' and '.join(broke)} among them, which broke" if broke else "")
            + ("." if equal else "")
        )
        averaging, pair = findings.seen("F-Spa-DIR without averaging has more motion error"), self._pair("F-Spa-DIR")
        if averaging and averaging.mean is not None and pair:
            small = abs(self.part("3b").mean) < abs(averaging.mean)
            out.append(
                f"3b is {signed(self.part('3b').mean)} of motion error, where leaving averaging away changes"
                f" F-Spa-DIR by {signed(averaging.mean)}; clip by clip {_shares(pair)} and the rest equal (the"
                f" paper's votes: {pair.paper}\N{NO-BREAK SPACE}%)."
                + (
                    " **Confirmed then means that the sign is the same over seeds, and not that it could be seen.**"
                    if small and self.decided[2].verdict == "confirmed"
                    else ""
                )
            )
        return out

    def _notes_4(self) -> list[str]:
        return [
            f"Nearly every model has seen pairs right, F-base {self.percent('F-base', 'seen pairs')}, so 4b can"
            " hardly fail. The pictures in LAION's role show no held-out pair at all, which LAION's surely do: 4a"
            " says that pictures carry pairs over into videos, not how much more one set carries than another. That"
            " LAION's pictures are also worse, as the paper's scores suggest, is not tested: both sets are equally"
            " clean here. Right in colour, shape and direction together are of held-out pairs"
            f" {self.percent('F-Spa-DIR', 'all right, held-out')} in F-Spa-DIR,"
            f" {self.percent('F-Spa-DIR-LAION', 'all right, held-out')} in F-Spa-DIR-LAION and"
            f" {self.percent('F-base', 'all right, held-out')} in F-base."
        ]

    def _notes_5(self) -> list[str]:
        sham = self.findings.seen("F-Spa-DIR on low-quality stills is farther from the training videos")
        if not sham or sham.mean is None:
            return []
        return [
            "A sham, the same finetuning on low-quality stills, takes hardly anything off the defects"
            f" ({self.number('F-base', 'defect')} \N{RIGHTWARDS ARROW} {self.number('F-Spa-DIR-sham', 'defect')})"
            f" and adds {signed(sham.mean)} to the distance, of {signed(self.part('5a').mean)} in all."
        ]

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
        """What adapters of full rank at the rate of direct training say."""
        topic = "it has more {} than F-Spa-DIR"
        both = [self.findings.seen(topic.format(measure)) for measure in ("defect", "motion error")]
        intervals = [one.interval for one in both if one and one.interval]
        if len(intervals) == 2 and all(low > 0 for low, _ in intervals):
            return (
                "It ends far from F-Spa-DIR, so it is which layers learn, and not rank, that sets F-Spa-LORA apart"
                " from it ([numbers](#claim-3))."
            )
        return "Too few seeds to tell layers from rank ([numbers](#claim-3))."

    def former(self) -> str:
        """Claims 1 and 2 in their words of before the pilot."""
        starts = ("motion error rises more from P-base to P-Spa-LORA", "defects fall more from P-base to P-Spa-LORA")
        found = [self.findings.seen(start) for start in starts]
        numbers = [f"{signed(one.mean)} ({n})" for n, one in enumerate(found, 1) if one and one.mean is not None]
        return f"In the former words they would be {', '.join(numbers)}." if numbers else ""

    def slower(self) -> str:
        """Whether the rate of LoRA is what turned 1a."""
        asked = self.findings.seen("at a third of the rate P-Spa-LORA")
        if not asked or asked.mean is None:
            return "Which of the two turned the sign of 1a is not known."
        at = f"with LoRA at 1e-3, asked later, 1a is {signed(asked.mean)}"
        if asked.interval is None:
            return f"Whether it was the rate is open: {at} in a single seed."
        was = _by_sign(asked.interval, "It was the rate", "It was not the rate", "Whether it was the rate is open")
        return f"{was}: {at} {bracketed(asked.interval)} over {len(asked.values)} seeds."

    def answered(self) -> str:
        """How many of the questions beside the claims have an answer, and how many would by chance."""
        asked = [one for one in self.findings.beside if one.interval is not None]
        answers = sum(reading(one, self.findings) in (YES, NO) for one in asked)
        return (
            f"Of {len(asked)} such questions on this page {answers} are answered; about {0.05 * len(asked):.0f}"
            " would be if nothing differed."
        )

    def _pair(self, first: str) -> Preference | None:
        return next((pair for pair in self.findings.table_4 if pair.first == first), None)


def _shares(pair: Preference) -> str:
    won, lost = (round(100 * count / pair.clips) for count in (pair.wins, pair.losses))
    return f"{won}\N{NO-BREAK SPACE}% against {lost}\N{NO-BREAK SPACE}%"

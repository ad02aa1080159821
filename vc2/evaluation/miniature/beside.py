"""What is looked at beside the claims, without a verdict: what else could explain them, and what would contradict them.

A contrast is a number a seed, of which 0 means "it makes no difference"; the words say what a positive one means.
"""

from __future__ import annotations

from collections.abc import Sequence

from .arms import BASES, BY_NAME, ROWS
from .claims import Results
from .contrasts import (
    Contrast,
    Seen,
    Speaks,
    by_change,
    by_measure,
    excess_rise,
    last,
    less,
    lost,
    lost_with_object,
    matched,
    on_some_prompts,
)
from .evidence import Seed


def _to_clean(results: Results, arm: str) -> float:
    return float(results.rows[arm]["distance"]["clean"])


def _claim_1(how: str, part: str) -> list[Contrast]:
    p, f = f"P-{how}-LORA", f"F-{how}-LORA"
    more = f"{p} loses a larger share of its motion than {f}"
    return [
        Contrast("equal watermark", (1,), more, matched(p, f, by_measure("watermark"), falls=True), "for"),
        Contrast("equal defect", (1,), more, matched(p, f, by_measure("defect"), falls=True), "for"),
        Contrast(f"equal change of the {part} weights", (1,), more, matched(p, f, by_change(part), falls=False), "for"),
        Contrast(
            "only clips with an object, before and after",
            (1,),
            more,
            less(lost_with_object(p), lost_with_object(f)),
            "for",
        ),
        Contrast(
            "images pass the temporal convolutions",
            (1,),
            f"{more}, also with `image_temporal: full`",
            less(lost(f"{p}-full"), lost(f"{f}-full")),
            "for",
        ),
        Contrast(
            "motion error itself, and not its share (P-base has less to lose)",
            (1,),
            f"motion error rises more from P-base to {p} than from F-base to {f}",
            excess_rise(Results.motion, p, f),
            "for",
        ),
        Contrast(
            "where they end, not how far they came (P-base begins with more)",
            (1,),
            f"{p} has more motion error than {f}",
            last(Results.motion, (1, p), (-1, f)),
        ),
    ]


def _laion(measure: str, positive: str, speaks: Speaks) -> Contrast:
    at_400 = (-1.0, "F-Spa-DIR-LAION", {"step": 400})
    value = on_some_prompts(measure, (1.0, "F-Spa-DIR", {}), at_400)
    return Contrast("LAION at matched exposure", (4,), positive, value, speaks)


CONTRASTS = (
    *_claim_1("Spa", "spatial"),
    *_claim_1("Temp", "temporal"),
    Contrast(
        "sham: low-quality stills",
        (1,),
        "P-Spa-LORA on low-quality stills has more motion error than P-base",
        last(Results.motion, (1, "P-Spa-LORA-sham"), (-1, "P-base")),
        needs="P-Spa-LORA-sham",
    ),
    Contrast(
        "asked later: LoRA at the pilot's rate",
        (1,),
        "at a third of the rate P-Spa-LORA loses a larger share of its motion than F-Spa-LORA",
        less(lost("P-Spa-LORA-slow"), lost("F-Spa-LORA-slow")),
        "for",
    ),
    # No LoRA, so neither for nor against a claim about LoRA.
    Contrast(
        "asked later: VideoCrafter2's second stage from P-base",
        (1,),
        "P-Spa-DIR loses a larger share of its motion than F-Spa-DIR",
        less(lost("P-Spa-DIR"), lost("F-Spa-DIR")),
    ),
    *(
        Contrast(
            "asked later: VideoCrafter2's second stage from P-base",
            (1,),
            f"P-Spa-DIR has more {measure} than F-Spa-DIR",
            last(of, (1, "P-Spa-DIR"), (-1, "F-Spa-DIR")),
        )
        for measure, of in (("motion error", Results.motion), ("defect", Results.defect))
    ),
    Contrast(
        "images pass the temporal convolutions",
        (2,),
        "F-Spa-LORA has more defects than P-Spa-LORA, also with `image_temporal: full`",
        last(Results.defect, (1, "F-Spa-LORA-full"), (-1, "P-Spa-LORA-full")),
        "for",
    ),
    Contrast(
        "asked later: LoRA at the pilot's rate",
        (2,),
        "at a third of the rate F-Spa-LORA has more defects than P-Spa-LORA",
        last(Results.defect, (1, "F-Spa-LORA-slow"), (-1, "P-Spa-LORA-slow")),
        "for",
    ),
    Contrast(
        "images pass the temporal convolutions",
        (2,),
        "F-Temp-LORA keeps more than half of F-base's watermark, also with `image_temporal: full`",
        last(Results.watermark, (1, "F-Temp-LORA-full"), (-0.5, "F-base")),
        "for",
    ),
    Contrast(
        "how far they came, not where they end",
        (2,),
        "defects fall more from P-base to P-Spa-LORA than from F-base to F-Spa-LORA",
        last(Results.defect, (1, "P-base"), (-1, "P-Spa-LORA"), (-1, "F-base"), (1, "F-Spa-LORA")),
        "for",
    ),
    Contrast(
        "sham: low-quality stills",
        (2,),
        "P-Spa-LORA on low-quality stills has less defect than P-base",
        last(Results.defect, (1, "P-base"), (-1, "P-Spa-LORA-sham")),
        "against",
        needs="P-Spa-LORA-sham",
    ),
    Contrast(
        "equal defect",
        (3,),
        "F-Spa-Temp-DIR loses a larger share of its motion than F-Spa-DIR",
        matched("F-Spa-Temp-DIR", "F-Spa-DIR", by_measure("defect"), falls=True),
        "for",
    ),
    Contrast(
        "equal change of the spatial weights",
        (3,),
        "F-Spa-Temp-DIR loses a larger share of its motion than F-Spa-DIR",
        matched("F-Spa-Temp-DIR", "F-Spa-DIR", by_change("spatial"), falls=False),
        "for",
    ),
    Contrast(
        "which layers: LoRA of full rank",
        (3,),
        "F-Spa-LORA at full rank (attention alone) has more defect than F-Spa-DIR (all spatial layers)",
        last(Results.defect, (1, "F-Spa-LORA-full-rank"), (-1, "F-Spa-DIR")),
        needs="F-Spa-LORA-full-rank",
    ),
    Contrast(
        "which layers: LoRA of full rank",
        (3,),
        "F-Spa-LORA at full rank has more motion error than F-Spa-DIR",
        last(Results.motion, (1, "F-Spa-LORA-full-rank"), (-1, "F-Spa-DIR")),
        needs="F-Spa-LORA-full-rank",
    ),
    *(
        Contrast(
            "asked later: LoRA of full rank at the rate of direct training",
            (3,),
            f"it has more {measure} than {other}, which differs in {what}",
            last(of, (1, "F-Spa-LORA-full-rank-slow"), (-1, other)),
        )
        for other, what in (("F-Spa-DIR", "the layers that learn"), ("F-Spa-LORA", "rank and rate"))
        for measure, of in (("defect", Results.defect), ("motion error", Results.motion))
    ),
    _laion("held-out pairs", "F-Spa-DIR (1000 steps) has more held-out pairs right than F-Spa-DIR-LAION at 400", "for"),
    _laion("seen pairs", "F-Spa-DIR (1000 steps) has more seen pairs right than F-Spa-DIR-LAION at 400", "against"),
    Contrast(
        "distance to clean videos",
        (5,),
        "F-Spa-DIR is nearer to clean videos of the same pairs than F-base",
        last(_to_clean, (1, "F-base"), (-1, "F-Spa-DIR")),
        "for",
    ),
    Contrast(
        "a random change as large as F-Spa-DIR's",
        (5,),
        "F-Spa-DIR is farther from the training videos than the random change",
        last(Results.distance, (1, "F-Spa-DIR"), (-1, "random")),
        "for",
    ),
    Contrast(
        "a random change as large as F-Spa-DIR's",
        (5,),
        "the random change has more defect than F-Spa-DIR",
        last(Results.defect, (1, "random"), (-1, "F-Spa-DIR")),
        "for",
    ),
    Contrast(
        "sham: low-quality stills",
        (3, 5),
        "F-Spa-DIR on low-quality stills has less defect than F-base",
        last(Results.defect, (1, "F-base"), (-1, "F-Spa-DIR-sham")),
        "against",
    ),
    Contrast(
        "sham: low-quality stills",
        (5,),
        "F-Spa-DIR on low-quality stills is farther from the training videos than F-base",
        last(Results.distance, (1, "F-Spa-DIR-sham"), (-1, "F-base")),
        "against",
    ),
    *(
        Contrast(
            "the frame rate as a switch",
            (),
            f"{base}, told 100 frames a second, has less {measure} than told 8",
            on_some_prompts(measure, (1.0, base, {}), (-1.0, base, {"fps": 100})),
        )
        for base in ("F-base", "P-base")
        for measure in ("defect", "motion error")
    ),
    *(
        Contrast(
            "not averaged weights",
            (),
            f"{arm.name} without averaging has more {measure}",
            on_some_prompts(measure, (1.0, arm.name, {"weights": "raw"}), (-1.0, arm.name, {})),
        )
        for arm in (*BASES[1:], *ROWS)
        for measure in ("defect", "motion error")
    ),
)


def look(seeds: Sequence[Seed]) -> list[Seen]:
    """Every contrast."""
    return [
        Seen(contrast, {seed.number: value for seed in seeds if (value := contrast.of(seed)) is not None})
        for contrast in CONTRASTS
    ]


def _of_f() -> list[str]:
    """F's variants, the paper's choice first."""
    return [arm.name for arm in ROWS if BY_NAME[arm.name].start == "F-base"]


def _better(results: Results, one: str, other: str) -> bool:
    """Less defect and less motion error."""
    return results.defect(one) < results.defect(other) and results.motion(one) < results.motion(other)


def dominating(seeds: Sequence[Seed]) -> dict[str, list[int]]:
    """F variants with less defect and less motion error than F-Spa-DIR, the paper's choice, and in which seeds."""
    found: dict[str, list[int]] = {}
    for seed in seeds:
        for name in _of_f():
            if _better(seed.results, name, "F-Spa-DIR"):
                found.setdefault(name, []).append(seed.number)
    return found


def undominated(seeds: Sequence[Seed]) -> dict[str, int]:
    """F variants than which no other has both less defect and less motion error, and in how many seeds that is so."""
    found: dict[str, int] = {}
    for seed in seeds:
        for name in _of_f():
            if not any(_better(seed.results, other, name) for other in _of_f()):
                found[name] = found.get(name, 0) + 1
    return found

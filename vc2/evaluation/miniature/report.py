"""`docs/miniature/README.md` and what lies beside it, from the rows; and whether what is there follows from them."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict
from typing import Any

import jinja2

from ...training.errors import RecipeError
from ...training.sources import paper_world
from ..picture import DEFECTS
from ..rate.votes import VOTES
from ..writing import replace_text, rounded
from . import gallery, grids, notes, plots, rates, rows, words
from .arms import ROWS
from .calibration import measured, trained_weights
from .evidence import ASKED_LATER, REGISTERED_SEEDS, Evidence, Seed, gather
from .findings import Findings
from .layouts import Layout
from .score import scenes
from .tables import (
    MEASURES,
    STEPS,
    TABLE_3,
    Table,
    mean_trajectory,
    of_row,
)
from .verdicts import Verdict, in_a_sentence, in_words, verdicts

log = logging.getLogger(__name__)

PAGE, NUMBERS, FOREST, WAYS = "README.md", "report.json", "forest.svg", "trajectories.svg"
FRONT = "../../README.md"  # the repository's front page, from docs/miniature
HOW_IT_STANDS = re.compile(r"(?<=<!-- verdicts -->).*?(?=<!-- /verdicts -->)", re.DOTALL)
IN_THE_PAPER = {
    1: "Table 4: people prefer F-Spa-LORA's motion to P-Spa-LORA's (87 %) and F-Temp-LORA's to P-Temp-LORA's (73 %).",
    2: "Table 3: P-Spa-LORA and F-Spa-LORA have much the same aesthetic score (78.25, 77.97), but technical quality"
    " 72.74 and 59.60; F-Temp-LORA keeps the watermark.",
    3: "Table 3: F-Spa-DIR's picture is as good as F-Spa&Temp-DIR's; Table 4: its motion is preferred, 67 %.",
    4: "Section 4.4: JourneyDB's pictures teach concepts that LAION's do not.",
    5: "the supplement: FVD rises from 485 to 653 while quality rises, so that FVD measures likeness to poor videos.",
}


def write(layout: Layout) -> Evidence:
    """Write the report. Raises RecipeError for rows that do not belong here, OSError."""
    evidence = gather(layout.place, layout.rows, layout.gates, layout.kind)
    layout.folder.mkdir(parents=True, exist_ok=True)
    make = bool(evidence.seeds) and layout.kind != "sketch"  # it takes a minute
    known = measured(layout.calibration, layout.place.encoders, dict(evidence.encoders), make)
    choice = grids.choose(evidence)
    _draw_grids(layout, evidence, choice)
    for name, text in files(layout, evidence, known).items():
        replace_text(layout.folder / name, text)
    if page := gallery.write(evidence, layout.place):
        log.info("all clips of a seed: %s", page)
    return evidence


def _draw_grids(layout: Layout, evidence: Evidence, choice: grids.Choice | None) -> None:
    """Pictures of other clips than the page will name are taken away."""
    if choice and grids.draw(choice, evidence.seeds[0], layout.place, layout.folder):
        return
    before = layout.folder / NUMBERS
    shown = json.loads(before.read_text(encoding="utf-8"))["clips"] if before.is_file() else None
    if choice is None or shown != choice.tree():
        for name in (grids.BY_MOTION, grids.RANDOM):
            (layout.folder / name).unlink(missing_ok=True)
    if choice:
        log.warning("the clips are not in %s; the page's pictures of clips stay as they were", layout.place.root)


def regenerate(layout: Layout) -> dict[str, str]:
    """What the files of the report would hold, by name. Raises as `write`."""
    evidence = gather(layout.place, layout.rows, layout.gates, layout.kind)
    known = measured(layout.calibration, layout.place.encoders, dict(evidence.encoders), make=False)
    return files(layout, evidence, known)


def files(layout: Layout, evidence: Evidence, known: list[dict[str, Any]]) -> dict[str, str]:
    """Every file that follows from the rows, by name; the repository's front page has a sentence that does."""
    decided, seeds = verdicts(evidence), evidence.seeds
    findings = Findings.of(seeds)
    written = {NUMBERS: json.dumps(numbers(evidence, decided, findings), indent=1) + "\n"}
    calibration = [{"kind": row["kind"], "cells": of_row(row, Seed(-1, (), evidence.scale))} for row in known]
    written[PAGE] = page(layout, evidence, decided, findings, calibration)
    if seeds:
        written[FOREST] = plots.forest(decided)
        ways = {arm.name: mean_trajectory(seeds, arm.name) for arm in ROWS}
        clean = _clean(calibration)
        written[WAYS] = plots.trajectories(ways, (clean["defect"], clean["motion error"]) if clean else None)
    front = layout.folder / FRONT
    if layout.kind == "counted" and front.is_file():
        sentence = in_a_sentence(evidence, decided)
        written[FRONT] = HOW_IT_STANDS.sub(lambda _: sentence, front.read_text(encoding="utf-8"))
    return written


def page(
    layout: Layout,
    evidence: Evidence,
    decided: list[Verdict],
    findings: Findings,
    calibration: list[dict[str, Any]],
) -> str:
    """The Markdown."""
    seeds, choice, votes = evidence.seeds, grids.choose(evidence), _votes(layout)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vc2.evaluation.miniature", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["signed"] = lambda value: "\N{EN DASH}" if value is None else plots.signed(value)
    environment.filters["said"] = lambda seen: words.reading(seen, findings)
    environment.filters["speaking"] = lambda seen: words.speaking(seen, findings)
    environment.tests["about"] = lambda claims, number: number in claims
    clean = _clean(calibration)
    said = words.Words(seeds, decided, findings, votes is not None, clean["motion error"] if clean else None)
    text = environment.get_template("report.md.jinja").render(
        kind=evidence.kind,
        seeds=seeds,
        registered=REGISTERED_SEEDS,
        unfinished=evidence.unfinished,
        extra=evidence.extra,
        verdicts=decided,
        in_the_paper=IN_THE_PAPER,
        prompts=evidence.prompts,
        some=len(scenes(some=True)),
        stops=f"{', '.join(map(str, (0, *STEPS[:-1])))} and {STEPS[-1]}",
        words=said,
        notes=lambda claim: notes.of(said, claim),
        verdict_of=in_words,
        held_out={index for index in (choice.random if choice else ()) if not _seen(index)},
        measures=[measure.name for measure in MEASURES],
        trained={name: _count(weights) for name, weights in (trained_weights() if seeds else {}).items()},
        paper_table_3={name: f"{a:.2f} / {t:.2f}" for name, (a, t) in TABLE_3.items()},
        calibration=calibration,
        frozen_is_worst=_frozen_is_worst(calibration),
        **vars(findings),
        by_part={part: way for part, way in findings.by_step.items() if way != [None] * len(STEPS)},
        steps=STEPS,
        defects=DEFECTS,
        seen_share=[_seen_share(some) for some in (True, False)],
        grids=bool(choice) and all((layout.folder / name).is_file() for name in (grids.BY_MOTION, grids.RANDOM)),
        choice=choice,
        rates=rates.table(rows.read(layout.rates)) if layout.rates.is_file() else [],
        votes=votes,
        world_gates=evidence.world_gates,
        seed_gates=_seed_gates(seeds),
        world=paper_world.world_hash(),
        encoders=evidence.encoders,
        commit=evidence.commit,
        later=_later(seeds),
        torch=", ".join(sorted({row["torch"] for seed in seeds for row in seed.rows})),
        precision=" and ".join(sorted({row["precision"] for seed in seeds for row in seed.rows})),
        hours=_hours(seeds, "training"),
        scoring_hours=_hours(seeds, "scoring"),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _votes(layout: Layout) -> dict[str, Any] | None:
    """Tables of people's votes on the pairs that are fixed, None where nobody has voted. Raises RecipeError for votes
    on others.
    """
    if not (layout.votes / VOTES).is_file():
        return None
    from ..rate import results  # whose libraries nothing else here needs
    from ..rate.session import Session
    from .clips import are_fixed

    if not are_fixed(Session.load(layout.votes)):
        raise RecipeError(f"{layout.votes} holds votes on other pairs than docs/rating.md fixes; move them away")
    tree: dict[str, Any] = json.loads(results.regenerate(layout.votes)[results.NUMBERS])
    return tree if tree["votes"] else None


def _seen_share(some: bool) -> float:
    """Of the prompts, some or all, those whose pair of colour and shape the videos show."""
    chosen = scenes(some=some)
    return sum(paper_world.seen(scene.colour, scene.shape) for scene in chosen) / len(chosen)


def _seen(index: int) -> bool:
    """Whether the videos show the pair of a prompt."""
    return paper_world.seen(scenes()[index].colour, scenes()[index].shape)


def _count(weights: int) -> str:
    return f"{weights / 1e6:.2f} M" if weights >= 1e5 else f"{weights / 1e3:.0f} K"


def _clean(calibration: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the judge says of clean ground truth."""
    return next((row["cells"] for row in calibration if row["kind"].startswith("ground truth, clean")), None)


def _later(seeds: tuple[Seed, ...]) -> list[str]:
    """Commits of the rows that were asked later."""
    return sorted({row["commit"][:7] for seed in seeds for row in seed.rows if row["arm"] in ASKED_LATER})


def _frozen_is_worst(calibration: list[dict[str, Any]]) -> bool:
    errors = {row["kind"]: row["cells"]["motion error"] for row in calibration}
    frozen = [error for kind, error in errors.items() if kind.startswith("frozen")]
    return bool(frozen) and min(frozen) >= max(errors.values()) - 0.01


def _seed_gates(seeds: tuple[Seed, ...]) -> list[dict[str, Any]]:
    """A row a gate, its cells in the order of the seeds."""
    columns = [seed.gates() for seed in seeds]
    return [
        {"name": row[0].name, "bound": f"{'at most' if row[0].at_most else 'at least'} {row[0].bound:g}", "gates": row}
        for row in zip(*columns, strict=True)
    ]


def _hours(seeds: tuple[Seed, ...], what: str) -> str:
    """Of processors. The rows of one stop on the way (averaged weights, not averaged ones) all have its training."""
    spent: dict[tuple[Any, ...], float] = {}
    for seed in seeds:
        for row in (row for row in seed.rows if row["arm"] not in ASKED_LATER):
            stop = (seed.number, row["arm"], row["step"])
            spent[stop if what == "training" else (*stop, row["weights"], row["fps"])] = row["seconds"][what]
    return f"{sum(spent.values()) / 3600:.1f}"


def numbers(evidence: Evidence, decided: list[Verdict], findings: Findings) -> dict[str, Any]:
    """`report.json`: everything that the page rounds."""
    choice, seeds = grids.choose(evidence), evidence.seeds
    tree = {
        "kind": evidence.kind,
        "seeds": [seed.number for seed in seeds],
        "registered seeds": REGISTERED_SEEDS,
        "unfinished": {str(seed): list(names) for seed, names in evidence.unfinished.items()},
        "not counted": list(evidence.extra),
        "commit": evidence.commit,
        "world": paper_world.world_hash(),
        "encoders": dict(evidence.encoders),
        "claims": [_claim(verdict) for verdict in decided],
        "beside": [
            {
                "topic": seen.contrast.topic,
                "claims": list(seen.contrast.claims),
                "positive": seen.contrast.positive,
                "values": {str(seed): value for seed, value in seen.values.items()},
                "interval": seen.interval,
            }
            for seen in findings.beside
        ],
        "table 3": _tree(findings.table_3),
        "apart": _tree(findings.apart),
        "claims by step": {"steps": STEPS, **findings.by_step},
        "table 4, metric-judged": [asdict(preference) for preference in findings.table_4],
        "trajectories: step, defect, motion error": {arm.name: mean_trajectory(seeds, arm.name) for arm in ROWS},
        "gates": {
            str(seed.number): [{"name": g.name, "value": g.value, "bound": g.bound, "passed": g.passed} for g in gates]
            for seed in seeds
            if (gates := seed.gates())
        },
        "less defect and less motion error than F-Spa-DIR": findings.dominating,
        "F variants than which none is better on both, and in how many seeds": findings.undominated,
        "finetunes of F whose defect is equal to F-Spa-DIR's by the test of 3a": findings.as_equal,
        "clips": choice.tree() if choice else None,
    }
    return rounded(tree)


def _tree(table: Table) -> dict[str, dict[str, Any]]:
    return {name: {column: asdict(spread) for column, spread in cells.items()} for name, cells in table.items()}


def _claim(verdict: Verdict) -> dict[str, Any]:
    return {
        "claim": verdict.claim.number,
        "says": verdict.claim.says,
        "verdict": verdict.verdict,
        "why": verdict.why,
        "corrected p": verdict.p_value,
        "corrected p of the opposite": verdict.p_against,
        "parts": [
            {
                "says": tested.part.says,
                "margin": tested.part.margin,
                "values": tested.values,
                "mean": tested.mean,
                "interval": tested.interval,
                "p": tested.p_value,
                "p of the opposite": tested.p_against,
            }
            for tested in verdict.parts
        ],
    }

"""How the claims of the paper in miniature are decided, and by which parts of rows."""

from __future__ import annotations

import numpy as np
import pytest

from vc2.evaluation.miniature import claims
from vc2.evaluation.miniature.gates import of_a_seed, share_right
from vc2.evaluation.miniature.score import scenes
from vc2.evaluation.picture import DEFECTS, Scale
from vc2.training.sources.paper_world import seen

SCALE = Scale(dict.fromkeys(DEFECTS, 0.0), dict.fromkeys(DEFECTS, 1.0))
# Motion error, defect, watermark, held-out and seen composition, distance: as the paper would have it.
PAPER = {
    "F-base": (0.3, 0.9, 0.9, 0.3, 0.9, 0.0),
    "P-base": (0.3, 0.9, 0.9, 0.3, 0.9, 0.0),
    "P-Spa-LORA": (0.6, 0.2, 0.1, 0.8, 0.9, 0.5),
    "F-Spa-LORA": (0.4, 0.4, 0.4, 0.8, 0.9, 0.5),
    "P-Temp-LORA": (0.7, 0.3, 0.2, 0.5, 0.9, 0.5),
    "F-Temp-LORA": (0.5, 0.8, 0.85, 0.4, 0.9, 0.5),
    "F-Spa-DIR": (0.32, 0.1, 0.05, 0.9, 0.95, 0.9),
    "F-Spa-Temp-DIR": (0.5, 0.1, 0.05, 0.9, 0.95, 0.9),
    "F-Spa-DIR-LAION": (0.32, 0.1, 0.05, 0.5, 0.95, 0.9),
}


def results(table: dict[str, tuple[float, ...]], seed: int) -> claims.Results:
    rng, made = np.random.default_rng(seed), []
    for arm, (motion, defect, watermark, held_out, on_seen, distance) in table.items():
        share = [on_seen if seen(s.colour, s.shape) else held_out for s in scenes()]
        counted = {True: 0, False: 0}
        flags = ""
        for wanted, scene in zip(share, scenes(), strict=True):
            group = seen(scene.colour, scene.shape)
            counted[group] += 1
            flags += str(int(counted[group] * wanted % 1 < wanted))
        columns = {name: [defect + float(rng.normal(0, 0.01))] * 95 + [None] for name in DEFECTS}
        columns["watermark"] = [watermark] * 96
        made.append(
            {
                "arm": arm, "weights": "ema", "fps": 8, "prompts": 96,
                "right": dict.fromkeys(("colour", "shape", "direction", "joint"), flags),
                "motion_error": [motion + float(rng.normal(0, 0.01))] * 96,
                "defects": columns,
                "distance": {"low": distance + float(rng.normal(0, 0.01))},
            }
        )  # fmt: skip
    return claims.Results.of(made, SCALE)


def verdicts(table: dict[str, tuple[float, ...]], seeds: int = 8) -> list[str]:
    return [outcome.verdict for outcome in claims.decide([results(table, seed) for seed in range(seeds)])]


def test_the_papers_results_confirm_all_claims_with_eight_seeds_and_none_with_three():
    assert verdicts(PAPER) == ["confirmed"] * 5
    assert verdicts(PAPER, 3) == ["undecided"] * 5


def test_each_claim_can_be_refuted():
    other = {
        **PAPER,
        "P-Spa-LORA": (0.35, 0.6, 0.5, 0.8, 0.9, 0.5),  # 1a and 2a
        "F-Spa-DIR": (0.6, 0.5, 0.4, 0.4, 0.9, -0.3),  # 3, 4a, 5a
    }
    assert verdicts(other) == ["refuted"] * 5


def test_no_difference_is_undecided_and_not_confirmed():
    """But for a watermark that training theta_S should take away, and does not."""
    same = dict.fromkeys(PAPER, PAPER["F-base"])
    assert verdicts(same) == ["undecided", "refuted", "undecided", "undecided", "undecided"]
    assert verdicts({**same, "F-Spa-DIR": PAPER["F-Spa-DIR"]})[1] == "undecided"


def test_what_a_base_loses_is_a_share_of_what_it_has():
    """P-base stands at 0.6 of 1: what F loses from 0.3, twice over, is a quarter of it, and of P's half."""
    table = {**PAPER, "P-base": (0.6, *PAPER["P-base"][1:]), "P-Spa-LORA": (0.8, *PAPER["P-Spa-LORA"][1:])}
    made = results({**table, "F-Spa-LORA": (0.475, *PAPER["F-Spa-LORA"][1:])}, 0)
    spatial, temporal = (part.of(made) for part in claims.CLAIMS[0].parts)
    assert spatial == pytest.approx(0.5 - 0.25, abs=0.1)
    assert temporal == pytest.approx(0.25 - 0.2857, abs=0.1)
    still = results({**PAPER, "P-base": (1.0, *PAPER["P-base"][1:])}, 0)
    still.rows["P-base"]["motion_error"] = [1.0] * 96
    assert claims.CLAIMS[0].parts[0].of(still) == pytest.approx(-(0.1 / 0.7), abs=0.1)


def test_two_pictures_that_hardly_got_better_are_equal_where_they_are():
    """The share of a small gain would be a large number."""
    table = {**PAPER, "F-Spa-DIR": (0.3, 0.88, *PAPER["F-Spa-DIR"][2:]), "F-Spa-Temp-DIR": (0.3, 0.86, 0.05, 1, 1, 0)}
    made = results(table, 0)
    assert abs(claims.CLAIMS[2].parts[0].of(made)) < 0.25


def test_seen_and_held_out_are_told_apart():
    row = {"prompts": 96, "right": {"joint": "".join(str(int(seen(s.colour, s.shape))) for s in scenes())}}
    assert share_right(row, "joint", held_out=False) == 1
    assert share_right(row, "joint", held_out=True) == 0
    assert share_right(row, "joint") == pytest.approx(32 / 96)


def test_the_gates_of_a_seed_wait_for_both_bases():
    made = [results(PAPER, 0).rows[name] for name in ("F-base", "P-base")]
    assert of_a_seed(made[:1]) == []
    passed = {gate.name: gate.passed for gate in of_a_seed(made)}
    assert len(passed) == 4
    assert passed["F-base: all right, held-out pairs"]

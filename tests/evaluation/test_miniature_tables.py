"""The tables of the paper in miniature, and what stands beside them, on rows whose truth is known."""

from __future__ import annotations

import pytest

from tests.evaluation import synthetic
from tests.evaluation.synthetic import PAPER, SAME, gathered
from vc2.evaluation.miniature import beside, rows, tables
from vc2.evaluation.miniature.claims import CLAIMS, Results
from vc2.evaluation.miniature.evidence import Seed, on_some
from vc2.evaluation.miniature.score import scenes
from vc2.evaluation.picture import DEFECTS, Scale
from vc2.training.sources import paper_world

SCALE = Scale(dict.fromkeys(DEFECTS, 0.0), dict.fromkeys(DEFECTS, 1.0))


# Tables


def test_the_tables_say_what_the_rows_say(paper):
    seeds = gathered(paper).seeds
    table = tables.table_3(seeds)
    for name in PAPER:
        assert table[name]["motion error"].mean == pytest.approx(PAPER[name][0], abs=0.05), name
        assert table[name]["defect"].mean == pytest.approx(PAPER[name][1], abs=0.05), name
        assert table[name]["watermark"].mean == pytest.approx(PAPER[name][2], abs=0.05), name
        assert table[name]["direction"].mean == pytest.approx(PAPER[name][3], abs=0.05), name
        assert table[name]["held-out pairs"].mean == pytest.approx(PAPER[name][4], abs=0.1), name
    bases, one, *_ = tables.table_4(seeds)
    assert (bases.first, bases.second, bases.paper) == ("F-base", "P-base", None)
    assert (one.first, one.second) == ("F-Spa-LORA", "P-Spa-LORA")
    assert one.wins > 0.9 * one.clips  # the lower error moves better
    assert one.clips == 8 * 96
    assert 0.03 < one.tie < 0.08  # what the synthetic rows differ by: 0.02 a seed and 0.05 a clip


def test_a_model_ties_with_one_like_it(tmp_path):
    alike = tables.table_4(gathered(synthetic.write(tmp_path / "docs", SAME)).seeds)[3]
    assert alike.ties > 0.4 * alike.clips
    assert abs(alike.wins - alike.losses) < 0.25 * alike.clips


def test_defects_stand_by_themselves_and_are_not_cut(paper):
    seeds = gathered(paper).seeds
    clean, low = (vars(seeds[0].scale)[name]["blur"] for name in ("clean", "low"))
    row = seeds[0].results.rows["F-Spa-DIR"]
    row["defects"]["blur"] = [clean + 2.5 * (low - clean)] * 95 + [None]
    row["right"] = {**row["right"], "colour": "1" * 96, "shape": "1" * 96, "direction": "1" * 48 + "0" * 48}
    row["change"] = {"spatial": 0.25, "temporal": 0.0}
    (cells,) = (tables.apart(seeds[:1])[name] for name in ("F-Spa-DIR",))
    assert cells["blur"].mean == pytest.approx(2.5)
    held_out = [not paper_world.seen(scene.colour, scene.shape) for scene in scenes()]
    assert cells["all right, held-out"].mean == pytest.approx(sum(held_out[:48]) / sum(held_out))
    assert cells["spatial change"].mean == 0.25
    row["defects"]["blur"] = [None] * 96  # no clip shows an object
    assert "blur" not in tables.apart(seeds[:1])["F-Spa-DIR"]


def test_what_the_claims_would_be_had_finetuning_ended_earlier(paper):
    seeds = gathered(paper).seeds
    ways = tables.by_step(seeds)
    assert {name[:2] for name in ways} == {f"{n}{letter}" for n in range(1, 6) for letter in "ab"}
    (harm,) = (way for name, way in ways.items() if name.startswith("1a"))
    some = [claims_of_some(seed)["1a"] for seed in seeds]
    assert harm[-1] == pytest.approx(sum(some) / len(some))
    (early,) = (way for name, way in ways.items() if name.startswith("5b"))
    at_50 = [defect_at(seed, "F-base", None) - defect_at(seed, "F-Spa-DIR", tables.STEPS[0]) for seed in seeds]
    assert early[0] == pytest.approx(sum(at_50) / len(at_50))
    assert early[0] != pytest.approx(early[-1])
    (distance,) = (way for name, way in ways.items() if name.startswith("5a"))
    assert distance == [None] * len(tables.STEPS)  # some prompts are too few for it
    assert set(tables.by_step(())["1a " + CLAIMS[0].parts[0].says]) == {None}


def defect_at(seed: Seed, arm: str, step: int | None) -> float:
    row = seed.row(arm, step)
    assert row is not None
    return Results({arm: on_some(row)}, seed.scale).defect(arm)


def claims_of_some(seed: Seed) -> dict[str, float]:
    results = Results({name: on_some(row) for name, row in seed.results.rows.items()}, seed.scale)
    return {"1a": CLAIMS[0].parts[0].of(results)}


def test_a_row_of_all_prompts_is_cut_to_the_prompts_of_snapshots():
    whole = synthetic.row(2, "F-base", PAPER["F-base"], 4000)
    whole["motion_error"] = [scene.colour + 10 * scene.direction for scene in scenes()]
    cut = on_some(whole)
    assert cut["motion_error"] == [scene.colour + 10 * scene.direction for scene in scenes(some=True)]
    assert {len(values) for values in (*cut["right"].values(), *cut["defects"].values())} == {32}
    assert on_some(cut) == cut


# Beside


def straight(arm: str, steps: int, defect: float, motion: float) -> list[rows.Row]:
    """A finetune that goes straight from F- or P-base (defect 1, motion error 0.2)."""
    out = []
    for step in (0, 50, steps):
        way = step / steps
        row = synthetic.row(2, arm if step else f"{arm[0]}-base", (0.0,) * 7, step, some=True)
        row["motion_error"] = [0.2 + way * (motion - 0.2)] * 32
        row["defects"] = {name: [1 + way * (defect - 1)] * 32 for name in DEFECTS}
        row["change"] = {"spatial": way * motion, "temporal": 0.0}
        out.append(row)
    return out


def test_motion_is_compared_where_the_pictures_are_equal():
    """P goes twice as far on the same way: at equal picture there is no difference, at the end there is. Of 0.8 that
    there is to lose, the steeper way has lost 0.2 more.
    """
    made = straight("P-Spa-LORA", 1000, defect=0.2, motion=0.6) + straight("F-Spa-LORA", 1000, defect=0.6, motion=0.4)
    seed = Seed(2, made, SCALE)
    equal = {
        c.topic: c.of(seed)
        for c in beside.CONTRASTS
        if c.positive == "P-Spa-LORA loses a larger share of its motion than F-Spa-LORA"
    }
    assert equal["equal defect"] == pytest.approx(0, abs=1e-6)
    steeper = Seed(2, straight("P-Spa-LORA", 1000, 0.2, 1.0) + made[3:], SCALE)
    assert next(c.of(steeper) for c in beside.CONTRASTS if c.topic == "equal defect") == pytest.approx(0.25)


def of_claim_1(made: list[rows.Row]) -> dict[str, float | None]:
    wanted = "P-Spa-LORA loses a", "P-Spa-LORA has more", "motion error rises more from P-base to P-Spa"
    return {
        c.topic: c.of(Seed(2, made, SCALE, {row["arm"]: row["step"] for row in made}))
        for c in beside.CONTRASTS
        if c.claims == (1,) and c.positive.startswith(wanted)
    }


def test_motion_is_compared_in_itself_too_and_without_clips_that_show_nothing():
    def model(arm: str, step: int, motion: float, unseen: int = 0) -> rows.Row:
        row = synthetic.row(2, arm, (0.0,) * 7, step)
        row["motion_error"] = [1.0] * unseen + [motion] * (96 - unseen)
        row["speed"] = [None] * unseen + [1.0] * (96 - unseen)
        return row

    made = [model("P-base", 4000, 0.6), model("F-base", 4000, 0.2)]
    # P rises by 0.2 of 0.4, F by 0.3 of 0.8; and a third of F's clips show nothing.
    looked = of_claim_1([*made, model("P-Spa-LORA", 1000, 0.8), model("F-Spa-LORA", 1000, 0.5)])
    assert looked["motion error itself, and not its share (P-base has less to lose)"] == pytest.approx(0.2 - 0.3)
    assert looked["where they end, not how far they came (P-base begins with more)"] == pytest.approx(0.3)
    unseen = of_claim_1([*made, model("P-Spa-LORA", 1000, 0.8), model("F-Spa-LORA", 1000, 0.3, unseen=32)])
    assert unseen["only clips with an object, before and after"] == pytest.approx(0.2 / 0.4 - 0.1 / 0.8)
    assert unseen["where they end, not how far they came (P-base begins with more)"] < 0.3


def test_contrasts_see_every_control(paper):
    seen = beside.look(gathered(paper).seeds)
    of_seeds = [one for one in seen if not one.contrast.topic.startswith("asked later")]  # which these have not
    assert all(len(one.values) >= 7 for one in of_seeds)
    assert {tuple(one.values) for one in beside.look(())} == {()}
    by = {(one.contrast.topic, one.contrast.positive): one.mean for one in seen}
    (held_out,) = [mean for (topic, text), mean in by.items() if "held-out pairs right than" in text]
    assert held_out > 0.3


def test_what_is_better_on_both_counts_dominates(tmp_path):
    table = {**PAPER, "F-Temp-DIR": (0.1, 0.02, 0.0, 0.9, 0.9, 0.95, 0.9)}
    seeds = gathered(synthetic.write(tmp_path / "docs", table, (2, 3))).seeds
    assert beside.dominating(seeds)["F-Temp-DIR"] == [2, 3]
    assert "F-Spa-LORA" not in beside.dominating(seeds)
    assert beside.undominated(seeds)["F-Temp-DIR"] == 2
    assert "F-Spa-DIR" not in beside.undominated(seeds)

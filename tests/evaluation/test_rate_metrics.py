"""Do the metrics agree with the votes?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.rating import PROMPTS, cast, rate
from vc2.evaluation import __main__ as command
from vc2.evaluation import verify
from vc2.evaluation.rate import metrics
from vc2.evaluation.rate.server import Rating
from vc2.evaluation.rate.session import Entry, Pair, Session
from vc2.evaluation.rate.votes import LEFT, RIGHT
from vc2.evaluation.rows import OK, Score, append_scores
from vc2.evaluation.sets import SCORES
from vc2.metrics.metric import file_hash


def scored(values: dict[str, dict[str, float]]) -> list[Score]:
    """Rows of clips by measure and the clip's hash."""
    how = ("lib 1", None, "none")
    return [
        Score("x", f"{clip}.mp4", clip, None, None, measure, value, OK, *how)
        for measure, of_clips in values.items()
        for clip, value in of_clips.items()
    ]


def pairs_of(count: int) -> Session:
    """Clips a0, a1, ... of the set a against b0, b1, ... of the set b."""
    pairs = tuple(
        Pair(f"{i}", f"p{i}", "", 0, *(Entry(name, f"{name}{i}.mp4", f"{name}{i}", "t") for name in "ab"))
        for i in range(count)
    )
    return Session(("a", "b"), ("a", "b"), ("motion",), 0, pairs)


def test_a_metric_that_people_follow_agrees_and_its_opposite_does_not():
    rng = np.random.default_rng(0)
    beauty = {f"{name}{i}": float(rng.normal()) for name in "ab" for i in range(40)}
    mine = [cast("a" if beauty[f"a{i}"] > beauty[f"b{i}"] else "b", i) for i in range(40)]
    of = {
        "sharpness": beauty,  # higher is better
        "noise": {clip: -value for clip, value in beauty.items()},  # lower is better
        "flicker": beauty,  # lower is better, too
        "flow": beauty,  # neither
        "jerk": dict.fromkeys(beauty, 0.5),
    }
    by = {one.measure: one for one in metrics.against_votes(pairs_of(40), mine, scored(of))}
    for name in ("sharpness", "noise"):
        assert by[name].share == 1
        assert by[name].interval == pytest.approx((0.912, 1), abs=0.001)  # Wilson's of 40 of 40
        assert by[name].correlation > 0.8
    assert by["flicker"].share == 0
    assert by["flicker"].correlation == pytest.approx(-by["noise"].correlation)
    assert by["flow"].share is None
    assert by["flow"].correlation == by["sharpness"].correlation
    assert (by["jerk"].share, by["jerk"].correlation) == (0.5, None)  # it finds all equal


def test_ties_and_raters_who_disagree_decide_nothing():
    values = {"sharpness": {f"{name}{i}": float(name == "a") for name in "ab" for i in range(4)}}
    mine = [cast("a", 0, r) for r in "xyz"] + [cast("b", 1, "x"), cast("b", 1, "y"), cast("a", 1, "z")]
    mine += [cast("a", 2, "x"), cast(None, 2, "y"), cast("b", 2, "z")]
    mine += [cast(None, 3, "x"), cast(None, 3, "y"), cast("a", 3, "z")]
    (one,) = metrics.against_votes(pairs_of(4), mine, scored(values))
    assert (one.pairs, one.decided, one.share) == (4, 2, 0.5)
    assert one.correlation is None  # four pairs are too few


def test_which_set_is_the_first_changes_no_agreement():
    rng = np.random.default_rng(1)
    values = {"sharpness": {f"{name}{i}": float(rng.normal()) for name in "ab" for i in range(30)}}
    mine = [cast(str(rng.choice(["a", "b"])), i) for i in range(30)]
    made = pairs_of(30)
    turned = replace(
        made, pairs=tuple(replace(p, first=p.second, second=p.first) if i % 3 else p for i, p in enumerate(made.pairs))
    )
    (one,), (two,) = (metrics.against_votes(some, mine, scored(values)) for some in (made, turned))
    assert two.share == one.share
    assert two.correlation == pytest.approx(one.correlation)
    assert two.correlation_interval == pytest.approx(one.correlation_interval)
    assert one.correlation_interval[0] < one.correlation < one.correlation_interval[1]
    assert abs(one.correlation) < 0.4  # votes by chance


def test_intervals_count_prompts_and_not_pairs():
    assert metrics.wilson(0.67, 100) == pytest.approx((0.573, 0.754), abs=0.001)
    made = pairs_of(40)
    values = {"sharpness": {f"{name}{i}": float(name == "a") for name in "ab" for i in range(40)}}
    mine = [cast("a" if i % 4 else "b", i) for i in range(40)]
    few = replace(made, pairs=tuple(replace(p, prompt_id=f"p{i // 10}") for i, p in enumerate(made.pairs)))
    (one,), (two,) = (metrics.against_votes(some, mine, scored(values)) for some in (made, few))
    assert one.share == two.share == 0.75
    assert two.interval == pytest.approx(metrics.wilson(0.75, 4))
    assert one.interval == pytest.approx(metrics.wilson(0.75, 40))


def test_scores_of_the_clips_are_kept_beside_the_votes_and_of_no_others(begun, sets, capsys):
    made, folder = begun

    def score(path: Path, value: float, control: str | None = None) -> Score:
        what = (path.parent.name, path.name, file_hash(path), None, None, "sharpness", value, OK, "lib 1", None, "none")
        return Score(*what, control)

    for level, one in enumerate(sets):
        rows = [score(one / f"{prompt}-{seed}.mp4", -level) for prompt in PROMPTS for seed in (0, 1)]
        append_scores(one / SCORES, [*rows, *(replace(row, control="frozen", value=9.0) for row in rows)])
    rate(Rating(made, folder), "ada", lambda question, left, right: LEFT if left < right else RIGHT)
    assert command.main(["rate", "-o", str(folder), "--tables"]) == 0
    assert len((folder / metrics.ROWS).read_text().splitlines()) == 3 * len(PROMPTS)
    tree = json.loads((folder / "results.json").read_text())
    visual, motion = tree["metrics"]
    # The votes went by the alphabet: others, ours, theirs; the scores: ours, theirs, others.
    assert visual["share"] == motion["share"] == pytest.approx(1 / 3, abs=1e-5)
    assert "| visual | sharpness ↑ | 33 % [" in (folder / "results.md").read_text()
    assert verify.difference(folder) == ""
    for one in sets:
        (one / SCORES).unlink()  # the sets may go
    assert command.main(["rate", "-o", str(folder), "--tables"]) == 0
    assert json.loads((folder / "results.json").read_text()) == tree

"""The pairs that people rate: which meet, on which side, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.rating import PROMPTS
from vc2.evaluation.rate.session import Session, begin


def test_all_pairs_of_sets_meet_on_every_prompt(begun):
    made, folder = begun
    assert len(made.pairs) == 3 * len(PROMPTS)
    assert {pair.seed for pair in made.pairs} == {0}
    assert Session.load(folder) == made
    assert all(pair.prompt == f"a panda, {pair.prompt_id}" for pair in made.pairs)


def test_prompts_are_drawn_by_the_seed_and_more_seeds_are_more_pairs(sets, suite):
    def chosen(seed: int) -> set[str]:
        return {pair.prompt_id for pair in begin(sets, suite, ["visual"], 5, 1, seed).pairs}

    assert chosen(0) == chosen(0) != chosen(1)
    assert len(chosen(0)) == 5
    assert len(begin(sets[:2], suite, ["visual"], 5, 2, 0).pairs) == 10


def test_sides_are_balanced_recorded_and_the_same_after_a_reload(begun):
    made, folder = begun
    left = [made.first_is_left(rater, pair.id) for rater in "abcdefgh" for pair in made.pairs]
    assert 0.4 < np.mean(left) < 0.6
    again = Session.load(folder)
    assert left == [again.first_is_left(rater, pair.id) for rater in "abcdefgh" for pair in made.pairs]
    assert [pair.id for pair in made.order("a")] != [pair.id for pair in made.order("b")]


def test_other_models_clips_without_seeds_are_paired_too(sets, suite, tmp_path):
    (tmp_path / "gen").mkdir()
    for prompt in PROMPTS[:4]:
        (tmp_path / "gen" / f"{prompt}.mp4").write_bytes(b"x")
    assert len(begin([sets[0], tmp_path / "gen"], suite, ["visual"], None, 1, 0).pairs) == 4


def test_only_the_sets_that_are_named_meet_and_so_many_pairs_are_spread_evenly(sets, suite):
    meetings = [("ours", "theirs"), ("others", "ours")]
    made = begin(sets, suite, ["visual"], None, 1, 0, meetings, 10)
    assert [(pair.first.set, pair.second.set) for pair in made.pairs] == [meetings[0]] * 5 + [meetings[1]] * 5
    assert len({pair.prompt_id for pair in made.pairs}) == 10  # of twelve: none twice

    def prompts(seed: int) -> set[str]:
        return {pair.prompt_id for pair in begin(sets, suite, ["visual"], None, 1, seed, meetings, 10).pairs}

    assert prompts(0) == {pair.prompt_id for pair in made.pairs} != prompts(1)
    assert len(begin(sets, suite, ["visual"], None, 2, 0, meetings).pairs) == 2 * 2 * len(PROMPTS)


@pytest.mark.parametrize(
    ("meetings", "count", "message"),
    [
        ([("ours", "gen")], None, "no set is called gen; there are ours, theirs, others"),
        ([("ours", "ours")], None, "ours cannot meet itself"),
        ([("ours", "theirs")], 13, "13 pairs were asked for, and there are 12"),
    ],
)
def test_meetings_that_cannot_be_are_told(sets, suite, meetings, count, message):
    with pytest.raises(ValueError, match=message):
        begin(sets, suite, ["visual"], None, 1, 0, meetings, count)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda sets: ([sets[0]], ["visual"]), "two sets are needed"),
        (lambda sets: (sets, ["beauty"]), "no question is called beauty"),
        (lambda sets: ([sets[0], sets[0]], ["visual"]), "same name"),
    ],
)
def test_what_cannot_be_compared_is_told(sets, suite, break_it, message):
    folders, questions = break_it(sets)
    with pytest.raises(ValueError, match=message):
        begin(folders, suite, questions, None, 1, 0)


def test_clips_that_no_browser_plays_are_told(sets, suite):
    (sets[0] / "prompt00-0.mp4").rename(sets[0] / "prompt00-0.avi")
    with pytest.raises(ValueError, match=r"prompt00-0\.avi: browsers play"):
        begin(sets, suite, ["visual"], None, 1, 0)

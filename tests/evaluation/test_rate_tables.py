"""What tables make of votes, on votes whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.rating import cast, rate
from vc2.evaluation import __main__ as command
from vc2.evaluation import verify
from vc2.evaluation.rate import results, session
from vc2.evaluation.rate.server import Rating
from vc2.evaluation.rate.session import Entry, Pair, Session
from vc2.evaluation.rate.votes import LEFT, RIGHT, TIE, VOTES


def simple(sets: tuple[str, ...] = ("a", "b")) -> Session:
    entry = Entry("a", "x.mp4", "h", "t")
    pairs = tuple(Pair(f"{i}", f"p{i}", "", 0, entry, entry) for i in range(50))
    return Session(sets, sets, ("motion",), 0, pairs)


def test_the_table_counts_wins_ties_and_losses():
    mine = [cast("a", i) for i in range(33)] + [cast(None, i) for i in range(33, 37)]
    mine += [cast("b", i, left="b", right="a") for i in range(37, 50)]
    (one,) = results.versus(simple(), mine)
    assert (one.wins.votes, one.ties.votes, one.losses.votes) == (33, 4, 13)
    assert (one.wins.of, one.prompts, one.raters) == (50, 50, 1)
    assert one.preference == pytest.approx((33 + 2) / 50)
    assert one.interval[0] < 0.7 < one.interval[1]


def test_wilsons_interval_is_the_known_one():
    share = results.Share.count(67, 100)
    assert (share.low, share.high) == pytest.approx((0.573, 0.754), abs=0.001)


def test_raters_that_repeat_one_another_make_no_interval_narrower():
    """Three raters who say the same of ten prompts know no more than one."""
    alone = [cast("a" if i < 7 else "b", i) for i in range(10)]
    thrice = [replace(vote, rater=rater) for vote in alone for rater in "xyz"]
    (one,), (three,) = (results.versus(simple(), some) for some in (alone, thrice))
    assert three.interval == pytest.approx(one.interval)
    assert three.wins.high - three.wins.low < one.wins.high - one.wins.low


def test_agreement_is_one_for_the_same_votes_and_none_for_chance():
    rng = np.random.default_rng(0)
    truth = [str(rng.choice(["a", "b"])) for _ in range(50)]
    same = [cast(winner, i, rater) for rater in "xyz" for i, winner in enumerate(truth)]
    # Seen from the other side, the same set is meant.
    swapped = [replace(v, left=v.right, right=v.left, choice=RIGHT if v.choice == LEFT else LEFT) for v in same[50:100]]
    (one,) = results.agreement(simple(), same[:50] + swapped)
    assert one.alpha == pytest.approx(1)
    chance = [cast(str(rng.choice(["a", "b"])), i, rater) for rater in "xyz" for i in range(50)]
    assert abs(results.agreement(simple(), chance)[0].alpha) < 0.2
    assert results.agreement(simple(), same[:50])[0].alpha is None  # one rater


def test_bradley_terry_finds_the_strengths_that_votes_were_drawn_from():
    rng, strength, mine = np.random.default_rng(0), {"a": 4.0, "b": 1.0, "c": 0.25}, []
    for left, right in (("a", "b"), ("b", "c"), ("a", "c")):
        for i in range(400):
            wins = rng.random() < strength[left] / (strength[left] + strength[right])
            mine.append(cast(left if wins else right, i % 50, left=left, right=right))
    by_set = {one.set: one for one in results.strengths(simple(("a", "b", "c")), mine)}
    for name, value in strength.items():  # their geometric mean is 1
        assert by_set[name].chance == pytest.approx(value / (value + 1), abs=0.05)
        assert by_set[name].interval[0] < by_set[name].chance < by_set[name].interval[1]


def test_a_set_that_never_wins_has_no_strength():
    mine = [cast("a", i) for i in range(9)] + [cast("b", i, left="b", right="c") for i in range(9)]
    assert {one.chance for one in results.strengths(simple(("a", "b", "c")), mine)} == {None}


def test_tables_are_written_and_verified(begun, capsys):
    made, folder = begun

    def prefer(question: str, left: str, right: str) -> str:
        return TIE if question == "motion" else LEFT if left == "ours" or right == "others" else RIGHT

    for rater in ("ada", "bob <b>"):
        rate(Rating(made, folder), rater, prefer)
    assert command.main(["rate", "-o", str(folder), "--tables"]) == 0
    tree = json.loads((folder / "results.json").read_text())
    by = {(one["question"], one["first"], one["second"]): one for one in tree["versus"]}
    assert by["visual", "ours", "theirs"]["wins"]["votes"] == 24
    assert by["visual", "theirs", "others"]["wins"]["votes"] == 24
    assert by["motion", "ours", "others"]["ties"]["votes"] == 24
    assert verify.difference(folder) == ""
    lines = (folder / VOTES).read_text().splitlines(True)
    (folder / VOTES).write_text("".join(lines[1:]))
    assert "results.json:" in verify.difference(folder)
    assert command.main(["verify", str(folder)]) == 1


def test_the_command_tells_what_is_wrong(sets, tmp_path, capsys):
    assert command.main(["rate", "-o", str(tmp_path / "none"), "--tables"]) == 2
    assert "session.json is missing" in capsys.readouterr().err
    assert session.QUESTIONS.keys() == {"visual", "motion", "alignment", "overall"}


def test_a_session_goes_on_with_what_it_was_begun_with(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("aiohttp.web.run_app", lambda *_, **__: None)
    out = tmp_path / "votes"
    begin = ["rate", *map(str, sets[:2]), "--questions", "motion", "--pairs", "5", "--seed", "9", "-o", str(out)]
    for given, message in (
        (["--pairs", "0"], "--pairs must be at least 1, found 0"),
        (["--prompts", "-1"], "--prompts must be at least 1, found -1"),
        (["--questions", ""], "no question is asked"),
    ):
        assert command.main([*begin, *given]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()
    for again in (begin, begin, ["rate", "-o", str(out)]):
        assert command.main(again) == 0
    made = session.Session.load(out)
    assert (made.questions, len(made.pairs), made.seed) == (("motion",), 5, 9)
    for given, message in (
        (["--pairs", "4"], "begun with --pairs 5, not 4"),
        (["--seed", "0"], "begun with --seed 9, not 0"),
        (["--meet", "ours", "theirs"], "begun with --meet"),
        (["--suite", "elsewhere.txt"], "begun with --suite None"),
    ):
        assert command.main(["rate", "-o", str(out), *given]) == 2
        assert message in capsys.readouterr().err

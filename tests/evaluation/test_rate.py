"""Blind votes: what is on disk, what the browser is told, and the tables."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from vc2.evaluation import __main__ as command
from vc2.evaluation import suites, verify
from vc2.evaluation.rate import metrics, results, session, votes
from vc2.evaluation.rate.server import Rating, application
from vc2.evaluation.rate.session import Entry, Pair, Session, begin
from vc2.evaluation.rate.votes import LEFT, RIGHT, TIE, VOTES, Vote
from vc2.evaluation.rows import OK, Score, append_scores
from vc2.evaluation.sets import SCORES
from vc2.metrics.metric import file_hash

PROMPTS = [f"prompt{number:02d}" for number in range(12)]


@pytest.fixture
def sets(tmp_path) -> list[Path]:
    """Three sets, named as no rater may learn; what is in the files is not looked at."""
    for name in ("ours", "theirs", "others"):
        (tmp_path / name).mkdir()
        for prompt in PROMPTS:
            for seed in (0, 1):
                (tmp_path / name / f"{prompt}-{seed}.mp4").write_bytes(f"{name} {prompt} {seed}".encode())
    return [tmp_path / name for name in ("ours", "theirs", "others")]


@pytest.fixture
def suite(tmp_path) -> suites.Suite:
    path = tmp_path / "suite.jsonl"
    path.write_text("".join(json.dumps({"id": p, "prompt": f"a panda, {p}"}) + "\n" for p in PROMPTS))
    return suites.load(str(path))


@pytest.fixture
def begun(sets, suite, tmp_path) -> tuple[Session, Path]:
    folder = tmp_path / "votes"
    folder.mkdir()
    made = begin(sets, suite, ["visual", "motion"], None, 1, 3)
    made.save(folder)
    return made, folder


def run(work):
    """In a thread: the browser's tests leave a loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def rate(rating: Rating, rater: str, prefer) -> None:
    """Answer everything; `prefer` maps (question, left, right) to a choice."""

    async def work() -> None:
        while "pair" in (task := rating.task(rater)):
            pair = rating.pairs[task["pair"]]
            choice = prefer(task["question"]["id"], *rating.sides(rater, pair))
            await rating.vote(rater, pair.id, task["question"]["id"], choice, 1.0)

    run(work())


# Pairs


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


# Votes


def test_a_vote_is_on_disk_before_it_is_answered_and_can_be_taken_back(begun):
    made, folder = begun
    rating = Rating(made, folder)
    task = rating.task("ada")
    pair = rating.pairs[task["pair"]]
    run(rating.vote("ada", pair.id, "visual", LEFT, 2.5))
    (vote,) = votes.read(folder / VOTES)
    assert vote.winner == vote.left == rating.sides("ada", pair)[0]
    assert vote.seconds == 2.5
    run(rating.vote("ada", pair.id, "visual", RIGHT, 1))  # pressed twice
    assert len(votes.read(folder / VOTES)) == 1
    run(rating.undo("bob"))  # who has none
    assert len(votes.read(folder / VOTES)) == 1
    run(rating.undo("ada"))
    assert votes.read(folder / VOTES) == []
    assert len((folder / VOTES).read_text().splitlines()) == 2  # nothing is ever taken away
    assert rating.task("ada") == task


def test_a_session_goes_on_where_it_was(begun):
    made, folder = begun
    rating = Rating(made, folder)
    for _ in range(3):
        task = rating.task("ada")
        run(rating.vote("ada", task["pair"], task["question"]["id"], TIE, 1))
    again = Rating(Session.load(folder), folder)
    assert again.task("ada") == rating.task("ada")
    assert again.task("ada")["done"] == 3
    assert again.task("bob")["done"] == 0
    task = again.task("ada")
    run(again.vote("ada", task["pair"], task["question"]["id"], TIE, 1))
    assert [vote.id for vote in votes.read(folder / VOTES)] == [1, 2, 3, 4]


def test_votes_on_clips_that_changed_are_not_mixed(begun, sets):
    made, folder = begun
    (sets[1] / "prompt03-0.mp4").write_bytes(b"another clip")
    with pytest.raises(ValueError, match=r"prompt03-0\.mp4 has changed since the votes began"):
        Rating(made, folder)


# The server


def browser(rating: Rating, work, host: str = "127.0.0.1"):
    async def talk():
        async with TestClient(TestServer(application(rating, host))) as client:
            return await work(client)

    return run(talk())


def test_nothing_that_the_browser_gets_names_a_set(begun):
    made, folder = begun
    rating = Rating(made, folder)

    async def work(client: TestClient) -> None:
        told, fetched = "", set()
        for _ in range(len(made.pairs)):
            task = await (await client.get("/task?rater=ada")).json()
            told += json.dumps(task)
            for clip in task["clips"]:
                answer = await client.get("/" + clip["url"])
                assert answer.status == 200
                told += str(answer.headers)
                fetched.add((await answer.read()).decode())
            body = {"rater": "ada", "pair": task["pair"], "question": task["question"]["id"], "choice": "left"}
            told += await (await client.post("/vote", json={**body, "seconds": 1})).text()
        told += await (await client.get("/")).text()
        assert not any(name in told for name in ("ours", "others", "theirs-", ".mp4", "prompt00-0"))
        assert len(fetched) > 6

    browser(rating, work)


def test_only_its_own_page_on_its_own_address_may_vote(begun):
    made, folder = begun
    rating = Rating(made, folder)
    body = {"rater": "ada", "pair": made.pairs[0].id, "question": "visual", "choice": "left", "seconds": 1}

    async def work(client: TestClient) -> None:
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            assert (await client.post("/vote", json=body, headers=headers)).status == 403
        form = await client.post("/vote", data=json.dumps(body), headers={"Content-Type": "text/plain"})
        assert form.status == 400
        for change in ({"pair": "../x"}, {"question": "x"}, {"choice": "x"}, {"rater": " "}, {"rater": "x" * 65}):
            assert (await client.post("/vote", json={**body, **change})).status == 400
        assert (await client.get("/clip/../../etc/passwd")).status == 404
        assert (await client.get("/clip/nothing")).status == 404
        assert (await client.post("/vote", json=body)).status == 200

    browser(rating, work)
    assert len(votes.read(folder / VOTES)) == 1


# Tables


def simple(sets: tuple[str, ...] = ("a", "b")) -> Session:
    entry = Entry("a", "x.mp4", "h", "t")
    pairs = tuple(Pair(f"{i}", f"p{i}", "", 0, entry, entry) for i in range(50))
    return Session(sets, sets, ("motion",), 0, pairs)


def cast(winner: str | None, pair: int, rater: str = "r", left: str = "a", right: str = "b") -> Vote:
    choice = TIE if winner is None else LEFT if winner == left else RIGHT
    return Vote(pair, rater, "motion", str(pair), f"p{pair}", left, right, choice, winner, 1.0, "")


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


# Metrics against votes


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

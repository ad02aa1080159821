"""Blind votes: what is on disk, and what the browser is told."""

from __future__ import annotations

import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.evaluation.rating import run
from vc2.evaluation.rate import votes
from vc2.evaluation.rate.server import Rating, application
from vc2.evaluation.rate.session import Session
from vc2.evaluation.rate.votes import LEFT, RIGHT, TIE, VOTES


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

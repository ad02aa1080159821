"""The prompts whose clips tests rate, and votes as they cast them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from vc2.evaluation.rate.server import Rating
from vc2.evaluation.rate.votes import LEFT, RIGHT, TIE, Vote

PROMPTS = [f"prompt{number:02d}" for number in range(12)]


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


def cast(winner: str | None, pair: int, rater: str = "r", left: str = "a", right: str = "b") -> Vote:
    choice = TIE if winner is None else LEFT if winner == left else RIGHT
    return Vote(pair, rater, "motion", str(pair), f"p{pair}", left, right, choice, winner, 1.0, "")

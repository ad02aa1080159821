"""The page for raters, and what it asks for. What the browser is told names no set: clips have tokens."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from ...metrics.metric import file_hash
from . import votes as store
from .session import QUESTIONS, Pair, Session
from .votes import CHOICES, LEFT, TIE, VOTES, Vote

NAME = 64  # letters of a rater's name, at most


class Rating:
    """A session that raters work on; votes go to `folder` before they are answered. Raises ValueError for clips that
    are no longer those that votes were on, OSError.
    """

    def __init__(self, session: Session, folder: Path):
        self.session, self.path = session, folder / VOTES
        self.votes = store.read(self.path)
        self.pairs = {pair.id: pair for pair in session.pairs}
        self.next_id = store.next_id(self.path)
        self.lock = asyncio.Lock()
        roots = dict(zip(session.sets, session.folders, strict=True))
        entries = [entry for pair in session.pairs for entry in (pair.first, pair.second)]
        self.clips = {entry.token: Path(roots[entry.set], entry.clip) for entry in entries}
        for entry in {entry.token: entry for entry in entries}.values():
            path = self.clips[entry.token]
            if file_hash(path) != entry.hash:
                raise ValueError(f"{path} has changed since the votes began; name another folder with -o")

    def task(self, rater: str) -> dict[str, Any]:
        """The next question for a rater, or that all are answered."""
        mine = store.of(self.votes, rater)
        answered = {(vote.pair, vote.question) for vote in mine}
        total = len(self.session.pairs) * len(self.session.questions)
        state = {"done": len(mine), "total": total}
        for pair in self.session.order(rater):
            for question in self.session.questions:
                if (pair.id, question) not in answered:
                    left, right = self.sides(rater, pair)
                    ask = dict(zip(("id", "text", "hint"), (question, *QUESTIONS[question]), strict=True))
                    clips = [{"url": f"clip/{entry.token}", "picture": entry.clip.lower().endswith(".gif")}
                             for entry in (pair.entry(left), pair.entry(right))]  # fmt: skip
                    return {**state, "pair": pair.id, "prompt": pair.prompt, "question": ask, "clips": clips}
        return state

    def sides(self, rater: str, pair: Pair) -> tuple[str, str]:
        """Names of the sets on the left and on the right."""
        both = (pair.first.set, pair.second.set)
        return both if self.session.first_is_left(rater, pair.id) else both[::-1]

    async def vote(self, rater: str, pair_id: str, question: str, choice: str, seconds: float) -> None:
        """Raises ValueError for what was not asked, OSError."""
        if pair_id not in self.pairs or question not in self.session.questions or choice not in CHOICES:
            raise ValueError(f"no such question: {pair_id} {question} {choice}")
        pair = self.pairs[pair_id]
        async with self.lock:
            if any((vote.pair, vote.question) == (pair_id, question) for vote in store.of(self.votes, rater)):
                return  # the key was pressed twice, or in two windows
            left, right = self.sides(rater, pair)
            winner = None if choice == TIE else left if choice == LEFT else right
            what = (rater, question, pair_id, pair.prompt_id, left, right, choice, winner, seconds, store.now())
            vote = Vote(self.next_id, *what)
            await asyncio.to_thread(store.add, self.path, vote)
            self.next_id += 1
            self.votes.append(vote)

    async def undo(self, rater: str) -> None:
        """Take the rater's last vote back, if there is one. Raises OSError."""
        async with self.lock:
            mine = store.of(self.votes, rater)
            if mine:
                await asyncio.to_thread(store.take_back, self.path, mine[-1])
                self.votes.remove(mine[-1])


def application(rating: Rating, host: str) -> web.Application:
    """Answers only what was sent to the address that it listens on, from a page of its own: a site that the rater has
    open elsewhere cannot vote, nor look.
    """
    page = files(__package__).joinpath("page.html").read_text(encoding="utf-8")

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        name = request.url.host or ""
        if _is_loopback(host) and not _is_loopback(name):
            raise web.HTTPForbidden(text=f"this page is at http://{host}, not at {name}")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"{request.url.scheme}://{request.host}":
            raise web.HTTPForbidden(text="votes come from this page alone")
        try:
            response: web.StreamResponse = await handler(request)
        except (ValueError, KeyError, TypeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        response.headers["Cache-Control"] = "no-store"
        return response

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    async def task(request: web.Request) -> web.Response:
        return web.json_response(rating.task(_rater(request.query.get("rater"))))

    async def vote(request: web.Request) -> web.Response:
        tree = await _body(request)
        rater, seconds = _rater(tree["rater"]), round(float(tree["seconds"]), 1)
        await rating.vote(rater, tree["pair"], tree["question"], tree["choice"], seconds)
        return web.json_response(rating.task(rater))

    async def undo(request: web.Request) -> web.Response:
        rater = _rater((await _body(request))["rater"])
        await rating.undo(rater)
        return web.json_response(rating.task(rater))

    async def clip(request: web.Request) -> web.FileResponse:
        path = rating.clips.get(request.match_info["token"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path)

    app = web.Application(middlewares=[guard])
    app.add_routes(
        [
            web.get("/", index),
            web.get("/task", task),
            web.post("/vote", vote),
            web.post("/undo", undo),
            web.get("/clip/{token}", clip),
        ]
    )
    return app


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _rater(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or len(name) > NAME:
        raise ValueError(f"a rater's name has 1 to {NAME} letters")
    return name.strip()


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":  # what a form of another site cannot send
        raise ValueError("votes are JSON")
    tree = json.loads(await request.text())
    if not isinstance(tree, dict):
        raise ValueError("votes are JSON objects")
    return tree

"""The `rate` subcommand: serve the page, and write the tables."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from .. import suites
from ..sets import read_manifest
from . import metrics, results
from .server import Rating, application
from .session import QUESTIONS, SESSION, Session, begin

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sets", nargs="*", type=Path, metavar="SET", help="folders of clips, two or more (to begin)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where session and votes are kept")
    parser.add_argument("--suite", help="prompts: miniature, or a file (default: the one in a set's manifest)")
    parser.add_argument(
        "--questions",
        metavar="A,B",
        help=f"asked of every pair (default: {','.join(QUESTIONS)})",
    )
    parser.add_argument("--prompts", type=int, help="how many, drawn by the seed (default: all)")
    parser.add_argument("--seeds", type=int, help="clips of a prompt (default: 1)")
    parser.add_argument(
        "--meet",
        nargs=2,
        action="append",
        metavar="NAME",
        help="two sets that meet; repeatable (default: every two)",
    )
    parser.add_argument(
        "--pairs", type=int, metavar="N", help="pairs of clips, spread over meetings and prompts (default: all)"
    )
    parser.add_argument("--rows", type=Path, nargs="+", default=[], metavar="FILE", help="scores that lie elsewhere")
    parser.add_argument("--seed", type=int, help="of sides and order (default: 0)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in your network rate, too")
    parser.add_argument("--port", type=int, default=8200)
    parser.add_argument("--tables", action="store_true", help="write results.md and results.json, and serve nothing")


# What a session is begun with; it goes on with the same.
DEFAULTS: dict[str, Any] = {
    "suite": None,
    "questions": ",".join(QUESTIONS),
    "prompts": None,
    "seeds": 1,
    "meet": [],
    "pairs": None,
    "seed": 0,
}


def run(args: argparse.Namespace) -> int:
    """Raises ValueError and OSError for what the user can put right."""
    session = _session(args)
    if not args.tables:
        rating = Rating(session, args.out)
        log.info("rate at http://%s:%d until Ctrl-C; votes go to %s", args.host, args.port, rating.path)
        web.run_app(application(rating, args.host), host=args.host, port=args.port, print=None, access_log=None)
    metrics.keep_scores(session, args.out, args.rows)
    results.write(args.out)
    log.info("%s", args.out / results.RESULTS)
    return 0


def _session(args: argparse.Namespace) -> Session:
    """The one that was begun, or a new one."""
    if (args.out / SESSION).is_file():
        session = Session.load(args.out)
        if args.sets and tuple(map(str, args.sets)) != session.folders:
            raise ValueError(
                f"{args.out} compares {', '.join(session.folders)}; name another folder with -o for other sets"
            )
        for name in DEFAULTS:
            given, before = getattr(args, name), session.asked.get(name)
            if given is not None and name in session.asked and given != before:
                raise ValueError(
                    f"{args.out} was begun with --{name} {before}, not {given}; name another folder with -o"
                )
        return session
    if args.tables:
        raise ValueError(f"{args.out} holds no votes: {SESSION} is missing")
    asked = {name: default if (given := getattr(args, name)) is None else given for name, default in DEFAULTS.items()}
    for name in ("prompts", "seeds", "pairs"):
        if asked[name] is not None and asked[name] < 1:
            raise ValueError(f"--{name} must be at least 1, found {asked[name]}")
    manifests = [manifest for folder in args.sets if (manifest := read_manifest(folder))]
    suite_name = args.suite or (manifests[0].suite if manifests else None)
    suite = suites.load(suite_name) if suite_name else None
    if suite is None:
        log.warning("no suite is named, so that raters see no prompts (--suite)")
    questions = [question for question in asked["questions"].split(",") if question]
    meetings = [(first, second) for first, second in asked["meet"]]
    how = (asked["prompts"], asked["seeds"], asked["seed"], meetings, asked["pairs"])
    session = replace(begin(args.sets, suite, questions, *how), asked=asked)
    args.out.mkdir(parents=True, exist_ok=True)
    session.save(args.out)
    return session

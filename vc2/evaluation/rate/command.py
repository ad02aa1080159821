"""The `rate` subcommand: serve the page, and write the tables."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

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
        default=",".join(QUESTIONS),
        metavar="A,B",
        help=f"asked of every pair (default: {','.join(QUESTIONS)})",
    )
    parser.add_argument("--prompts", type=int, help="how many, drawn by the seed (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="clips of a prompt (default: 1)")
    parser.add_argument(
        "--meet",
        nargs=2,
        action="append",
        default=[],
        metavar="NAME",
        help="two sets that meet; repeatable (default: every two)",
    )
    parser.add_argument(
        "--pairs", type=int, metavar="N", help="pairs of clips, spread over meetings and prompts (default: all)"
    )
    parser.add_argument("--rows", type=Path, nargs="+", default=[], metavar="FILE", help="scores that lie elsewhere")
    parser.add_argument("--seed", type=int, default=0, help="of sides and order (default: 0)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in your network rate, too")
    parser.add_argument("--port", type=int, default=8200)
    parser.add_argument("--tables", action="store_true", help="write results.md and results.json, and serve nothing")


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
        return session
    if args.tables:
        raise ValueError(f"{args.out} holds no votes: {SESSION} is missing")
    manifests = [manifest for folder in args.sets if (manifest := read_manifest(folder))]
    name = args.suite or (manifests[0].suite if manifests else None)
    suite = suites.load(name) if name else None
    if suite is None:
        log.warning("no suite is named, so that raters see no prompts (--suite)")
    questions = [question for question in args.questions.split(",") if question]
    meetings = [(first, second) for first, second in args.meet]
    session = begin(args.sets, suite, questions, args.prompts, args.seeds, args.seed, meetings, args.pairs)
    args.out.mkdir(parents=True, exist_ok=True)
    session.save(args.out)
    return session

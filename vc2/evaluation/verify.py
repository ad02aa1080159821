"""The `verify` subcommand: does what a folder shows follow from the rows that it holds?"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="of a report, of votes, or docs/miniature")


def run(args: argparse.Namespace) -> int:
    """0, or 1 where a folder differs. Raises ValueError for a folder that is none of these, OSError."""
    differing = 0
    for folder in args.folders:
        found = difference(folder)
        differing += bool(found)
        log.log(logging.ERROR if found else logging.INFO, "%s", found or f"{folder}: all follows from the rows")
    return int(differing > 0)


def difference(folder: Path) -> str:
    """The first difference between what the folder shows and what its rows say, "" where there is none."""
    # Each kind stands on libraries that the others do not need.
    if (folder / "about.json").is_file():
        from .report.check import regenerate as report

        return compare(folder, *report(folder))
    if (folder / "session.json").is_file():
        from .rate.results import regenerate as votes

        return compare(folder, votes(folder))
    if (folder / "gates.json").is_file():
        from .miniature import layouts
        from .miniature.report import regenerate as miniature
        from .rate.votes import VOTES

        layout = layouts.in_folder(folder)
        votes_differ = difference(layout.votes) if (layout.votes / VOTES).is_file() else ""
        return votes_differ or compare(folder, miniature(layout))
    raise ValueError(f"{folder} holds no report: no about.json, session.json or gates.json is there")


def compare(folder: Path, wanted: Mapping[str, str], present: Mapping[str, str] | None = None) -> str:
    """`present` stands for a file's text where not all of it follows from rows."""
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        there = (present or {}).get(name) or path.read_text(encoding="utf-8")
        if there == text:
            continue
        lines = zip([*there.splitlines(), ""], [*text.splitlines(), ""], strict=False)
        number, (found, expected) = next((n, both) for n, both in enumerate(lines, 1) if both[0] != both[1])
        return f"{path}:{number}: the rows say\n  {expected[:300]}\nand the file says\n  {found[:300]}"
    return ""

"""The `report` subcommand: a folder with report.md, report.json, report.html, and the rows that they follow from."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..provenance import commit, versions
from ..writing import replace_text
from . import clips
from .material import Material, read_sets
from .render import HTML, render

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sets", nargs="+", type=Path, metavar="SET", help="folders of scored clips; the first is the"
                        " one that others are compared with")  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where the report is written")
    parser.add_argument("--rows", type=Path, nargs="+", default=[], metavar="FILE", help="scores that lie elsewhere")
    parser.add_argument("--title", default="Clips, compared", help="the page's heading")
    parser.add_argument("--by", metavar="MEASURE", help="worst and median clips go by it (default: the first fit one)")
    parser.add_argument("--prompts", type=int, default=6, help="how many are shown side by side (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choice of clips (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Raises ValueError and OSError for what the user can put right."""
    sets, scores = read_sets(args.sets, args.rows)
    names = [one.name for one in sets]
    by = args.by or clips.default_measure(names, scores)
    if by is not None and not any(score.metric == by and score.clip is not None for score in scores):
        raise ValueError(f"--by {by}: no clip has a score of that name")
    made = {"commit": commit(), "versions": versions(), "command": shlex.join(["report", *_arguments()])}
    material = Material(args.title, sets, scores, by, args.prompts, args.seed, made)
    shown = clips.choose(material)
    folders = dict(zip(names, args.sets, strict=True))
    strips = [clips.strip(folders[one.set] / one.clip) for one in shown]
    pictures = tuple(strip.layout() for strip in strips)
    write(replace(material, shown=tuple(one.tree() for one in shown), pictures=pictures), strips, args.out)
    log.info("%s", args.out / HTML)
    return 0


def _arguments() -> list[str]:
    return sys.argv[sys.argv.index("report") + 1 :] if "report" in sys.argv else []


def write(material: Material, strips: Sequence[clips.Strip], folder: Path) -> None:
    """Raises OSError."""
    material.save(folder)
    for name, text in render(material, strips).items():
        replace_text(folder / name, text)

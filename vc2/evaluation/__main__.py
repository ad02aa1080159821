"""`python -m vc2.evaluation`: what can be measured, clips of a suite's prompts, their scores, and people's votes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from ..command import exit_status
from ..metrics.metric import WEIGHTS
from . import catalogue, generate, score, verify
from .rate import command as rate
from .report import command as report


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vc2.evaluation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every metric: what it measures, what it needs, what it must not be taken for")
    doctor = commands.add_parser("doctor", help="which of them can be computed here, and what the others lack")
    making = commands.add_parser("generate", help="a clip of every prompt of a suite; the same command goes on")
    generate.add_arguments(making)
    scoring = commands.add_parser("score", help="measure sets of clips, of any model; the same command goes on")
    score.add_arguments(scoring)
    reporting = commands.add_parser("report", help="scored sets side by side: Markdown, JSON, and one HTML file")
    report.add_arguments(reporting)
    rating = commands.add_parser("rate", help="a page for blind votes between sets, and their tables")
    rate.add_arguments(rating)
    verifying = commands.add_parser("verify", help="do tables follow from their rows? exits with 1 if not")
    verify.add_arguments(verifying)
    for command in (doctor, scoring):
        command.add_argument(
            "--weights", type=Path, metavar="DIR", help=f"folder of metrics' files (default: ${WEIGHTS})"
        )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    if args.command == "list":
        print("\n".join(catalogue.catalogue()))
        return 0
    for name, command in (("generate", generate), ("report", report), ("rate", rate), ("verify", verify)):
        if args.command == name:
            return command.run(args)
    if args.weights:
        if not args.weights.is_dir():
            raise ValueError(f"--weights {args.weights}: no such folder")
        os.environ[WEIGHTS] = str(args.weights)
    if args.command == "doctor":
        print("\n".join(catalogue.doctor()))
        return 0
    return score.run(args)


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 1 for `score --strict` that could not measure all, 130 for Ctrl-C, 2 for an error."""
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return exit_status(lambda: run(args), RuntimeError)


if __name__ == "__main__":
    sys.exit(main())

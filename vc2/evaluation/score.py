"""`score`: rows for every clip and metric of one or more sets, of any model, and for their controls.

What was measured is not measured again, so the same command goes on where it was stopped; what failed is tried again.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path

from ..metrics.registry import METRICS, chosen
from . import suites
from .rows import OK
from .scoring import Scoring
from .sets import SCORES, clips_of, read_manifest

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sets", nargs="+", type=Path, metavar="SET", help="a folder of clips, <prompt id>[-seed].mp4")
    parser.add_argument("--suite", help="prompts: miniature, or a file (default: the one in the set's manifest)")
    parser.add_argument(
        "--name", help="what tables call the set, where it is one (default: its manifest's, or folder's)"
    )
    parser.add_argument(
        "--metrics", metavar="A,B", help="those alone (default: all; what cannot be computed is skipped)"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="SET", help="real clips, for fvd, kvd, fid, kid, kernel_distance"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=f"the rows (default: {SCORES} in each set)")
    parser.add_argument("--no-controls", action="store_true", help="leave out frozen, shuffled and ground-truth clips")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if anything was skipped or failed")


def run(args: argparse.Namespace) -> int:
    """Raises ValueError and OSError for what the user can put right."""
    metrics = list(chosen(args.metrics.split(",") if args.metrics else METRICS))
    if args.name and len(args.sets) > 1:
        raise ValueError("--name is of one set; leave it out, or score them one by one")
    for folder in args.sets:
        clips_of(folder)  # a wrong name is told before hours of measuring
    reference = [clip.path for clip in clips_of(args.reference)] if args.reference else []
    outcomes: Counter[str] = Counter()
    try:
        for folder in args.sets:
            outcomes += _one(args, folder, reference).run(metrics)
    finally:
        for metric in metrics:
            metric.close()
    log.info("%s", ", ".join(f"{count} {status}" for status, count in sorted(outcomes.items())))
    return int(args.strict and any(status != OK for status in outcomes))


def _one(args: argparse.Namespace, folder: Path, reference: list[Path]) -> Scoring:
    manifest = read_manifest(folder)
    suite = suites.load(args.suite) if args.suite else None
    if manifest and suite is None:
        suite = suites.load(manifest.suite)
        if suite.hash != manifest.suite_hash:
            raise ValueError(f"{folder}: its suite {manifest.suite} has changed since; name the right one with --suite")
    prompts = {prompt.id: prompt for prompt in suite.prompts} if suite else {}
    clips = clips_of(folder, prompts)
    unknown = [clip.path.name for clip in clips if clip.prompt_id is None]
    if suite is None:
        log.warning("%s: no suite is named, so that no clip has a prompt (--suite)", folder)
    elif unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        log.warning("%s: no prompt of %s goes with %s; they are scored without", folder, suite.name, shown)
    name = args.name or (manifest.name if manifest else folder.resolve().name)
    out = args.out or folder / SCORES
    frames = manifest.settings.get("frames", 16) if manifest else 16
    return Scoring(name, clips, prompts, out, reference, controls=not args.no_controls, frames=frames)

"""`python -m vc2.evaluation.miniature`: plan, gates, rates, run, report, clips."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys

from ...command import exit_status
from ...training.errors import RecipeError, TrainingError
from ..writing import replace_text
from .arms import ARMS, DOCS, ENCODERS, GATES, PILOT_SEEDS, QUICK_ROOT, RATES, ROOT, Place

REGISTERED = "Status: fixed."  # a line of expectations.md from the commit on that the runs that count belong to


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vc2.evaluation.miniature", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("plan", help="the models of a seed, and how many steps each trains")
    commands.add_parser("gates", help="can this world show the claims? writes docs/miniature/gates.json")
    commands.add_parser("rates", help="learning rates of the finetunes, compared on the pilot's first seed")
    run = commands.add_parser("run", help="train, sample and score; the same command goes on where it stopped")
    run.add_argument("--seeds", type=int, default=8, help="how many (default: 8)")
    run.add_argument("--pilot", action="store_true", help="the two seeds that do not count, instead")
    run.add_argument("--quick", action="store_true", help="a sketch: few steps, few prompts, in a folder of its own")
    run.add_argument("--workers", type=int, default=1, help="processes of one thread each (default: 1, this one)")
    report = commands.add_parser("report", help="what came out: docs/miniature/README.md, report.json and pictures")
    which = report.add_mutually_exclusive_group()
    which.add_argument("--pilot", action="store_true", help="of the pilot's seeds, in runs/paper/pilot")
    which.add_argument("--quick", action="store_true", help="of the sketch, in runs/paper-quick/report")
    clips = commands.add_parser("clips", help="a finished seed's clips as sets of mp4, for people to rate")
    clips.add_argument("--seed", type=int, required=True)
    clips.add_argument("--arms", nargs="+", metavar="ARM", help="default: those of the pairs that docs/rating.md fixes")
    clips.add_argument("--quick", action="store_true", help="of the sketch")
    return parser.parse_args(argv)


def plan() -> list[str]:
    place, lines = Place(ROOT, ENCODERS), []
    for arm in ARMS:
        recipe = place.recipe(arm, 0)
        stops = ", ".join(str(step) for step in place.stops(arm, 0))
        learns = f"{recipe.learn.part}{' LoRA ' + str(recipe.learn.rank) if recipe.learn.how == 'lora' else ''}"
        lines.append(
            f"{arm.name:22} from {arm.start or 'nothing':8} {learns:16} scored at {stops:24} {place.identity(arm)}"
        )
    return lines


def gates() -> bool:
    from ...training.initialise import load_autoencoder
    from . import encoders, rows
    from .gates import TABLE, of_a_seed, of_the_world, report

    if not encoders.make(ENCODERS):
        raise KeyboardInterrupt
    measured, scale = of_the_world(load_autoencoder(ENCODERS))
    DOCS.mkdir(parents=True, exist_ok=True)
    replace_text(GATES, json.dumps(report(measured, scale, encoders.fingerprints(ENCODERS)), indent=1) + "\n")
    print("\n".join([*TABLE, *(gate.line() for gate in measured)]))
    for path in sorted((DOCS / "rows").glob("seed-*.jsonl")):
        if lines := [gate.line() for gate in of_a_seed(rows.read(path))]:
            print("\n".join([f"\n{path.stem}", *TABLE, *lines]))
    return all(gate.passed for gate in measured)


def rates() -> None:
    from . import rows
    from .rates import compare, table

    chosen = compare(Place(ROOT, ENCODERS), RATES, PILOT_SEEDS[0])
    print("\n".join([*table(rows.read(RATES)), *(f"{way}: {rate:g}" for way, rate in chosen.items())]))


def run(args: argparse.Namespace) -> None:
    """Raises KeyboardInterrupt where a run was stopped, RecipeError and what training raises."""
    from . import rows
    from .runner import Runner

    seeds = PILOT_SEEDS if args.pilot else tuple(range(len(PILOT_SEEDS), len(PILOT_SEEDS) + args.seeds))
    counted = not args.pilot and not args.quick
    if counted:
        commit = rows.commit()
        if not commit or commit.endswith("-dirty"):
            raise RecipeError(f"seeds that count run from a commit without changes, found {commit or 'no checkout'}")
        if REGISTERED not in (DOCS / "expectations.md").read_text(encoding="utf-8"):
            raise RecipeError(f"{DOCS / 'expectations.md'} is a draft; seeds that count run after it is fixed")
    place = Place(QUICK_ROOT if args.quick else ROOT, ENCODERS, args.quick)
    Runner(place, QUICK_ROOT / "rows" if args.quick else DOCS / "rows", seeds, counted).run()


def report(args: argparse.Namespace) -> None:
    """Raises RecipeError for rows that do not belong to this code."""
    from . import layouts
    from .report import PAGE, write

    kind = "sketch" if args.quick else "pilot" if args.pilot else "counted"
    layout = layouts.of_kind(kind)
    evidence = write(layout)
    print(f"{len(evidence.seeds)} finished seeds: {layout.folder / PAGE}")


def clips(args: argparse.Namespace) -> None:
    """Raises RecipeError for what is not there."""
    from . import layouts
    from .clips import RATED, export, rating
    from .evidence import gather

    layout = layouts.of_kind("sketch" if args.quick else "pilot" if args.seed in PILOT_SEEDS else "counted")
    evidence = gather(layout.place, layout.rows, layout.gates, layout.kind)
    folders = export(evidence, layout.place, args.seed, args.arms or RATED)
    print("\n".join([*map(str, folders), "", "To have them rated, blind:", rating(folders)]))


def spread(workers: int, argv: list[str]) -> int:
    """The same command in several processes of one thread each; the exit status of the first that failed."""
    command = [sys.executable, "-m", "vc2.evaluation.miniature", *argv, "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that they are told, too
    processes = [subprocess.Popen(command, env=environment) for _ in range(workers)]
    try:
        codes = [process.wait() for process in processes]
    except KeyboardInterrupt:
        for process in processes:
            process.terminate()
        codes = [process.wait() for process in processes]
    return next((abs(code) for code in codes if code), 0)


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 1 where a gate of the world failed, 130 where a signal stopped it, 2 for an error."""
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if args.command == "plan":
        print("\n".join(plan()))
        return 0
    if args.command == "run" and args.workers > 1:
        return spread(args.workers, list(sys.argv[1:] if argv is None else argv))

    def work() -> int:
        if args.command == "gates":
            return 0 if gates() else 1
        if args.command == "rates":
            rates()
        elif args.command == "report":
            report(args)
        elif args.command == "clips":
            clips(args)
        else:
            run(args)
        return 0

    return exit_status(work, TrainingError, interrupted="stopped; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())

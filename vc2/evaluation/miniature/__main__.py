"""`python -m vc2.evaluation.miniature`: plan, encoders, gates, rates, run, report, clips, pairs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
from typing import Any

from ...command import exit_status
from ...training.errors import RecipeError, TrainingError
from ..writing import replace_text
from .arms import ARMS, DOCS, ENCODERS, GATES, PILOT_SEEDS, RATES, ROOT, Place

log = logging.getLogger(__name__)

KINDS = {"pilot": "pilot", "repeat": "repeat", "quick": "sketch"}  # by option
REGISTERED = "Status: fixed."  # a line of expectations.md from the commit on that the runs that count belong to


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vc2.evaluation.miniature", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("plan", help="the models of a seed, and how many steps each trains")
    commands.add_parser("encoders", help="the autoencoder and the text tower that all models share")
    commands.add_parser("gates", help="can this world show the claims? writes docs/miniature/gates.json")
    commands.add_parser("rates", help="learning rates of the finetunes, compared on the pilot's first seed")
    run = commands.add_parser("run", help="train, sample and score; the same command goes on where it stopped")
    run.add_argument("--seeds", type=int, default=8, help="how many (default: 8)")
    _which(
        run,
        pilot="the two seeds that do not count, instead",
        repeat="from nothing, by this commit, in a folder of its own",
        quick="a sketch: few steps, few prompts, in a folder of its own",
    )
    run.add_argument("--later", action="store_true", help="of all finished seeds that count, what was asked later")
    run.add_argument("--workers", type=int, default=1, help="processes of one thread each (default: 1, this one)")
    report = commands.add_parser("report", help="what came out: docs/miniature/README.md, report.json and pictures")
    _which(
        report,
        pilot="of the pilot's seeds, in runs/paper/pilot",
        repeat="of the repetition, in runs/paper-repeat/report",
        quick="of the sketch, in runs/paper-quick/report",
    )
    clips = commands.add_parser("clips", help="a finished seed's clips as sets of mp4, for people to rate")
    clips.add_argument("--seed", type=int, required=True)
    clips.add_argument("--arms", nargs="+", metavar="ARM", help="default: those of the pairs that docs/rating.md fixes")
    _which(clips, repeat="of the repetition", quick="of the sketch")
    commands.add_parser("pairs", help="the pairs of clips that docs/rating.md fixes, in docs/miniature/votes")
    return parser.parse_args(argv)


def _which(parser: argparse.ArgumentParser, **kinds: str) -> None:
    """Options for kinds of seeds other than those that count; at most one may be given."""
    options = parser.add_mutually_exclusive_group()
    for kind, meaning in kinds.items():
        options.add_argument(f"--{kind}", dest="kind", action="store_const", const=KINDS[kind], help=meaning)
    parser.set_defaults(kind="counted")


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


def make_encoders() -> None:
    """Raises KeyboardInterrupt where their training was stopped."""
    from . import encoders

    if not encoders.make(ENCODERS):
        raise KeyboardInterrupt


def gates() -> bool:
    from ...training.initialise import load_autoencoder
    from . import encoders, rows
    from .gates import TABLE, of_a_seed, of_the_world, report

    make_encoders()
    measured, scale = of_the_world(load_autoencoder(ENCODERS))
    keep_gates(report(measured, scale, encoders.fingerprints(ENCODERS)))
    print("\n".join([*TABLE, *(gate.line() for gate in measured)]))
    for path in sorted((DOCS / "rows").glob("seed-*.jsonl")):
        if lines := [gate.line() for gate in of_a_seed(rows.read(path))]:
            print("\n".join([f"\n{path.stem}", *TABLE, *lines]))
    return all(gate.passed for gate in measured)


def keep_gates(tree: dict[str, Any]) -> None:
    """Write the gates where they say something else than those that are there, on whose file rows of seeds stand."""
    before = json.loads(GATES.read_text(encoding="utf-8")) if GATES.is_file() else {}
    if before | {"commit": tree["commit"]} == tree:
        log.info("%s stays as it is: the same was found in commit %s", GATES, before["commit"])
        return
    replace_text(GATES, json.dumps(tree, indent=1) + "\n")


def rates() -> None:
    from . import rows
    from .rates import compare, table

    chosen = compare(Place(ROOT, ENCODERS), RATES, PILOT_SEEDS[0])
    print("\n".join([*table(rows.read(RATES)), *(f"{way}: {rate:g}" for way, rate in chosen.items())]))


def run(args: argparse.Namespace) -> None:
    """Raises KeyboardInterrupt where a run was stopped, RecipeError and what training raises."""
    from . import layouts, rows
    from .evidence import ASKED_LATER, OF_ONE_COMMIT, gather, later_than
    from .runner import Runner

    if args.later and args.kind != "counted":
        raise RecipeError("--later is of the seeds that count; leave out the other option")
    seeds = PILOT_SEEDS if args.kind == "pilot" else tuple(range(len(PILOT_SEEDS), len(PILOT_SEEDS) + args.seeds))
    if args.kind == "counted":
        commit = rows.commit()
        if not commit or commit.endswith("-dirty"):
            raise RecipeError(f"seeds that count run from a commit without changes, found {commit or 'no checkout'}")
        if REGISTERED not in (DOCS / "expectations.md").read_text(encoding="utf-8"):
            raise RecipeError(f"{DOCS / 'expectations.md'} is a draft; seeds that count run after it is fixed")
    elif args.kind == "repeat" and rows.commit().endswith("-dirty"):
        log.warning(
            "this checkout has changes that no commit has; rows made before and after another are not told apart"
        )
    layout = layouts.of_kind(args.kind)
    if args.later:
        done = gather(layout.place, layout.rows, layout.gates, layout.kind).seeds
        numbers = tuple(seed.number for seed in done)
        Runner(layout.place, later_than(layout.rows), numbers, False, names=ASKED_LATER).run()
        return
    Runner(layout.place, layout.rows, seeds, args.kind in OF_ONE_COMMIT).run()


def report(args: argparse.Namespace) -> None:
    """Raises RecipeError for rows that do not belong to this code."""
    from . import layouts
    from .report import PAGE, write

    layout = layouts.of_kind(args.kind)
    evidence = write(layout)
    print(f"{len(evidence.seeds)} finished seeds: {layout.folder / PAGE}")


def clips(args: argparse.Namespace) -> None:
    """Raises RecipeError for what is not there."""
    from . import layouts
    from .clips import RATED, export, rating
    from .evidence import gather

    layout = layouts.of_kind("pilot" if args.kind == "counted" and args.seed in PILOT_SEEDS else args.kind)
    evidence = gather(layout.place, layout.rows, layout.gates, layout.kind)
    folders = export(evidence, layout.place, args.seed, args.arms or RATED)
    print("\n".join([*map(str, folders), "", "To have them rated, blind:", rating(folders)]))


def pairs() -> None:
    """Raises RecipeError for what is not there, OSError."""
    from . import layouts
    from .clips import RATED, SEED, export, fix
    from .evidence import gather

    layout = layouts.of_kind("counted")
    evidence = gather(layout.place, layout.rows, layout.gates, layout.kind)
    session = fix(export(evidence, layout.place, SEED, RATED), layout.votes)
    print(f"{len(session.pairs)} pairs in {layout.votes}; have them rated, blind: make rate")


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
        if args.command == "encoders":
            make_encoders()
        elif args.command == "rates":
            rates()
        elif args.command == "report":
            report(args)
        elif args.command == "clips":
            clips(args)
        elif args.command == "pairs":
            pairs()
        else:
            run(args)
        return 0

    return exit_status(work, TrainingError, interrupted="stopped; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())

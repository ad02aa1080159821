"""`generate`: a clip of every prompt of a suite and every seed, and the manifest that says how.

A clip is written whole or not at all, and one that is there is left as it is: the same command goes on where it was
stopped. Under `accelerate launch` every process takes its share.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __main__ as sampling
from ..files.output import listed
from ..files.video import write_video
from ..plural import plural
from . import provenance, suites
from .sets import MANIFEST, Manifest, read_manifest
from .writing import replace_text

if TYPE_CHECKING:
    from ..pipeline import Settings, TextToVideo

log = logging.getLogger(__name__)

# What two runs may not differ in if their clips are to be one set.
FIXED = ("checkpoint_hash", "suite_hash", "settings", "save_fps", "dtype")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, help="the set's folder")
    parser.add_argument("--suite", default="miniature", help="its prompts: miniature, or a file (default: miniature)")
    parser.add_argument("--checkpoint", type=Path, default=sampling.TINY, help="the model (default: the miniature)")
    parser.add_argument("--name", help="what tables call the set (default: the folder's name)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="clips of each prompt, seeds 0 to N - 1")
    parser.add_argument("--count", type=int, metavar="N", help="the suite's first N prompts alone")
    sampling.add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    """Raises ValueError and OSError for what the user can put right, and what sampling raises."""
    for name, value in (("seeds", args.seeds), ("count", args.count)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, found {value}")
    from ..pipeline import warn_of_cut

    suite = suites.load(args.suite).first(args.count)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not args.checkpoint.is_file():
        raise FileNotFoundError(f"{args.checkpoint}: no such checkpoint")
    every = [(prompt, seed) for seed in range(args.seeds) for prompt in suite.prompts]
    before = read_manifest(args.out)  # at once, as all processes do, before any writes it
    if before is None and (foreign := [path for job in every if (path := target(args.out, *job)).is_file()]):
        raise ValueError(
            f"{listed(foreign)}: there already, without a {MANIFEST}, so another program's; name another folder with -o"
        )
    missing = [(prompt, seed) for prompt, seed in every[rank::world] if not target(args.out, prompt, seed).is_file()]
    mine = len(every[rank::world])
    log.info("%d of %s there already", mine - len(missing), plural(mine, "clip"))
    model = sampling.load(args)
    settings = sampling.settings_of(args, model)
    manifest = describe(args, suite, model, settings)
    if before:
        manifest = continued(before, manifest, args.out)
    # Whoever comes first, so that no clip lies there without one.
    if manifest != before and (rank == 0 or not (args.out / MANIFEST).is_file()):
        write(args.out, manifest)
    warn_of_cut([settings.negative, *(prompt.prompt for prompt, _ in missing)], model.text.config.context_length)
    _sample(args, model, settings, missing, rank)
    return 0


def _sample(
    args: argparse.Namespace,
    model: TextToVideo,
    settings: Settings,
    missing: list[tuple[suites.Prompt, int]],
    rank: int,
) -> None:
    from tqdm import tqdm

    with tqdm(missing, desc=args.out.name, unit="clip", position=rank, dynamic_ncols=True) as bar:
        for prompt, seed in bar:

            def report(done: int, count: int) -> None:
                bar.set_postfix_str(f"step {done} of {count}")

            clip = model([prompt.prompt], [seed], settings, report)[0]
            note = {"prompt": prompt.prompt, "seed": seed, "checkpoint": args.checkpoint.name, **vars(settings)}
            write_video(target(args.out, prompt, seed), list(clip), args.save_fps, {"prompt_text": note})


def target(folder: Path, prompt: suites.Prompt, seed: int) -> Path:
    return folder / f"{prompt.id}-{seed}.mp4"


def describe(args: argparse.Namespace, suite: suites.Suite, model: TextToVideo, settings: Settings) -> Manifest:
    from ..metrics.metric import file_hash

    return Manifest(
        name=args.name or args.out.resolve().name,
        checkpoint=args.checkpoint.name,
        checkpoint_hash=file_hash(args.checkpoint),
        suite=suite.name,
        suite_hash=suite.hash,
        seeds=list(range(args.seeds)),
        settings=dict(vars(settings)),
        save_fps=args.save_fps,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        commit=provenance.commit(),
        versions=provenance.versions(),
    )


def continued(before: Manifest, now: Manifest, folder: Path) -> Manifest:
    """The manifest of a set that goes on. Raises ValueError where its clips would be of two kinds."""
    theirs, ours = before.json(), now.json()
    if differing := [
        f"{name} ({_short(theirs[name])}, now {_short(ours[name])})" for name in FIXED if theirs[name] != ours[name]
    ]:
        raise ValueError(f"{folder} was begun with another {', '.join(differing)}; name another folder with -o")
    if before.commit != now.commit:
        log.warning("%s was begun at commit %s; its further clips are made at %s", folder, before.commit, now.commit)
    return replace(before, seeds=max(before.seeds, now.seeds, key=len))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def write(folder: Path, manifest: Manifest) -> None:
    replace_text(folder / MANIFEST, json.dumps(manifest.json(), indent=1, ensure_ascii=False) + "\n")

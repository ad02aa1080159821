"""`python -m vc2.training`: run, recipes, check, prepare, profile, export, merge."""

from __future__ import annotations

import argparse
import logging
import math
import re
import sys
from importlib.metadata import version
from pathlib import Path

from ..command import exit_status
from ..files.output import check_target
from .errors import RecipeError, TrainingError
from .recipe_files import BUNDLED, load_recipe
from .signals import end_soon, leave

LEAST_TORCH = (2, 6)  # the first with FSDPModule, torch.compiler.set_stance and checkpoints without checksums


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vc2.training", description="Train VideoCrafter2.")
    commands = parser.add_subparsers(dest="command", required=True)

    def on_recipe(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "recipe",
            type=Path,
            help="a YAML file, e.g. training/recipes/F-base.yaml, or the name of one that comes with this package, e.g."
            " F-base or tiny/F-base",
        )
        command.add_argument(
            "overrides", nargs="*", metavar="key=value", help="changes to the recipe, e.g. optimizer.lr=1e-4"
        )
        command.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
        return command

    training = on_recipe("run", "train a recipe; the same command goes on where it stopped")
    training.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="KEY",
        help="a key in which the recipe may differ from the one that the run was begun with, e.g. optimizer.lr, from"
        " the checkpoint on that it goes on from; data.images: its files too; history.jsonl in the run's folder notes"
        " it; may be given again",
    )
    recipes = commands.add_parser("recipes", help="what each recipe starts from, learns, reads and costs")
    recipes.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=BUNDLED,
        help="of recipes (default: those that come with this package: the rows of the paper's Table 3, and one for your"
        " own images); tiny: the same rows for the miniature",
    )
    check = on_recipe("check", "validate recipe, data and weights, and estimate memory and cost, before anything runs")
    check.add_argument("--processes", type=_count, default=1, help="how many will share the batch (default: 1)")
    cards = check.add_mutually_exclusive_group()
    propose = "propose a micro-batch and checkpointing, and say what the run then costs,"
    cards.add_argument("--card", help=f"{propose} for such a card, e.g. a100-80")
    cards.add_argument("--memory", type=_gigabytes, help=f"{propose} for a card with so many GB")
    on_recipe("prepare", "encode the sources that are marked `prepared`; the same command goes on where it stopped")
    profile = on_recipe("profile", "where the time of a step goes, on your data; it trains nothing")
    profile.add_argument("--steps", type=int, default=10, help="that are measured, after two others (default: 10)")
    export = on_recipe("export", "write a run's weights as a file; RECIPE may be the run's folder")
    output = "a .safetensors file to write"
    export.add_argument(
        "-o",
        "--output",
        type=Path,
        help=f"{output} (default: <form>.safetensors in the run's folder; with --step or --raw, these in its name)",
    )
    export.add_argument(
        "--form",
        choices=("full", "spatial", "lora"),
        default="full",
        help="full: a whole checkpoint; spatial: the change of the spatial weights, which LoRA loaders add to a model;"
        " lora: the adapters of a LoRA run (default: full)",
    )
    export.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16", help="of the file (default: fp16)")
    export.add_argument(
        "--step",
        help="of which weights: a step that has a checkpoint, or best: that of the least held-out loss"
        " (default: the newest)",
    )
    export.add_argument("--raw", action="store_true", help="that step's own weights instead of their average")
    overwrite = "replace the output where it exists"
    export.add_argument("--overwrite", action="store_true", help=overwrite)
    merge = commands.add_parser("merge", help="write a checkpoint with a LoRA or a spatial change in its weights")
    merge.add_argument("checkpoint", type=Path, help="the model to merge into; the file itself stays as it is")
    merge.add_argument("lora", type=Path, help="what to merge into it: a LoRA, or a file of export --form spatial")
    merge.add_argument("-o", "--output", type=Path, required=True, help=output)
    merge.add_argument("--strength", type=float, default=1.0, help="of the LoRA or the change (default: 1)")
    merge.add_argument("--overwrite", action="store_true", help=overwrite)
    # argparse gives up on overrides that stand behind an option; they are overrides all the same.
    args, rest = parser.parse_known_args(argv)
    if rest and ("overrides" not in args or any(item.startswith("-") for item in rest)):
        parser.error(
            f"unrecognized arguments: {' '.join(rest)} (changes to a recipe are written key=value, such as steps=20)"
        )
    if rest:
        args.overrides += rest
    return args


def _count(text: str) -> int:
    """A number of processes."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def _gigabytes(text: str) -> float:
    """The memory of a card."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected gigabytes, such as 24, found {text!r}")
    return number


def run_command(argv: list[str] | None = None) -> int:
    """The exit status: 0, 130 where a signal stopped a run, 2 for what the user can put right, which one line says."""
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if tuple(map(int, re.findall(r"\d+", version("torch"))[:2])) < LEAST_TORCH:
        sys.stderr.write(f"error: training needs torch {'.'.join(map(str, LEAST_TORCH))}, found {version('torch')}\n")
        return 2
    return exit_status(lambda: run(args), TrainingError)


def run(args: argparse.Namespace) -> int:
    """One command. What it raises names what is wrong; torch is imported late, so that a bad recipe is told at once."""
    if args.command == "recipes":
        from .matrix import matrix

        print("\n".join(matrix(args.folder)))
        return 0
    if args.command == "merge":
        from ..lora import main as merge

        files = [str(args.lora), str(args.output), "--model", str(args.checkpoint)]
        return merge([*files, "--merge", "--strength", str(args.strength), *["--overwrite"] * args.overwrite])
    if args.command == "export" and args.recipe.is_dir():
        from .checkpoint import recipe_of

        if args.overrides:
            raise RecipeError(
                f"a run's folder stands for the recipe that it was trained with, which {', '.join(args.overrides)}"
                " would change; leave it out"
            )
        from .export import step_named

        recipe, folder = recipe_of(args.recipe, step_named(args.recipe, args.step)), args.recipe
    else:
        recipe = load_recipe(args.recipe, args.overrides)
        folder = args.runs / recipe.name
    cache = args.runs / "cache"
    if args.command == "check":
        from .cards import Card, card_of
        from .check import check

        card = None if args.memory is None else Card(args.memory, 0.0)
        if args.card is not None:
            card = card_of(args.card)
        for line in check(recipe, cache, args.processes, card):
            print(line, flush=True)
        return 0
    if args.command == "prepare":
        from .prepare import prepare
        from .together import failing_together

        with failing_together():
            for path in prepare(recipe, cache):
                print(path)
        return 0
    if args.command == "export":
        from .export import export, step_named

        step = step_named(folder, args.step)
        # Under its default name it is the run's own file, made of its checkpoints, and may be made again; of something
        # else than the run itself writes it has another name.
        parts = [args.form, *([] if step is None else [f"{step:08d}"]), *(["raw"] if args.raw else [])]
        target = args.output or folder / f"{'-'.join(parts)}.safetensors"
        check_target(target, args.overwrite or args.output is None)
        print(export(recipe, folder, target, args.form, args.dtype, args.raw, step))
        return 0
    if args.command == "profile":
        from .profile import profile
        from .together import failing_together

        with failing_together():
            for line in profile(recipe, folder, cache, args.steps):
                print(line)
        return 0
    from .loop import Trainer
    from .together import failing_together

    with failing_together():
        return 0 if Trainer(recipe, folder, cache, args.allow).run() else 130


def main() -> None:
    """Run the command and end the process with its status, whatever happens meanwhile."""
    status = 1
    try:
        status = run_command()
    except Exception:  # noqa: BLE001 (it is shown, and ends the process)
        sys.excepthook(*sys.exc_info())
    if status:
        end_soon()
        leave(status)


if __name__ == "__main__":
    main()

"""`python -m vc2.training run RECIPE [key=value ...]`"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from .config import RecipeError, load_recipe


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m vc2.training", description="Train VideoCrafter2.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train a recipe; the same command resumes it")
    run.add_argument("recipe", type=Path, help="a YAML file, e.g. training/recipes/tiny/base.yaml")
    run.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe, e.g. optimizer.lr=1e-4")
    run.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    export = commands.add_parser("export", help="write a run's averaged weights as they are now")
    export.add_argument("recipe", type=Path)
    export.add_argument("overrides", nargs="*", metavar="key=value")
    export.add_argument("--runs", type=Path, default=Path("runs"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        recipe = load_recipe(args.recipe, args.overrides)
        from .loop import Trainer  # only now: importing torch takes seconds, and a bad recipe should be told at once

        trainer = Trainer(recipe, args.runs / recipe.name)
    except (RecipeError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.command == "export":
        print(trainer.export())
        return 0
    return 0 if trainer.run() else 130


if __name__ == "__main__":
    sys.exit(main())

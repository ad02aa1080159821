"""`python -m vc2.training recipes`: what each recipe starts from, learns, reads and costs.

Nothing here needs torch, so that the first command that people try answers at once.
"""

from __future__ import annotations

from pathlib import Path

from .cost import a100_hours, figure
from .errors import RecipeError
from .recipe import Recipe
from .recipe_files import BUNDLED, called, load_recipe

HEADER = ("recipe", "starts from", "learns", "how", "data", "batch x steps", "size", "A100-hours")


def matrix(folder: Path) -> list[str]:
    """A table with a line for each recipe of a folder, or of one that comes with this package ("tiny"). Raises
    RecipeError where there is none.
    """
    if not any(folder.glob("*.yaml")) and (BUNDLED / folder).is_dir():
        folder = BUNDLED / folder
    if not folder.is_dir():
        raise RecipeError(f"{folder}: no such folder")
    paths = [path for path in sorted(folder.glob("*.yaml"), key=_bases_first) if not path.stem.startswith("_")]
    if not paths:
        raise RecipeError(f"{folder} holds no recipe; expected .yaml files whose names do not begin with _")
    rows = [HEADER, *(_row(called(path), load_recipe(path)) for path in paths)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * max(len(line) for line in lines), *lines[1:]]


def _bases_first(path: Path) -> tuple[bool, str]:
    return "base" not in path.stem, path.stem


def _row(called: str, recipe: Recipe) -> tuple[str, ...]:
    work = f"{recipe.batch} x {recipe.steps}"
    data = " + ".join(source.label for source in recipe.data.sources.values()) or "captions"
    if not recipe.of_the_unet:
        return (called, "nothing", recipe.objective, "direct", data, work, "", "")
    return (
        called,
        str(recipe.init.unet or recipe.init.sd or "nothing"),
        recipe.learn.part,
        recipe.learn.how + (f" {recipe.learn.rank}" if recipe.learn.how == "lora" else ""),
        data,
        work,
        f"{recipe.data.width}x{recipe.data.height}",
        figure(a100_hours(recipe)),
    )

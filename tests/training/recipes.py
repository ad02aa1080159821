"""The recipes that come with the trainer, and the paper's table that they are of."""

from __future__ import annotations

from pathlib import Path

from vc2.training.recipe import Recipe
from vc2.training.recipe_files import load_recipe

ROOT = Path(__file__).parent.parent.parent
RECIPES = ROOT / "training" / "recipes"
TINY = RECIPES / "tiny"
# Paper, Table 3: starts from, what learns, how, data.
TABLE = {
    "P-base": ("SD 2.1", "temporal", "direct", "WebVid + COCO"),
    "F-base": ("SD 2.1", "all", "direct", "WebVid + COCO"),
    "P-Spa-LORA": ("P-base", "spatial", "lora", "JDB"),
    "F-Spa-LORA": ("F-base", "spatial", "lora", "JDB"),
    "P-Temp-LORA": ("P-base", "temporal", "lora", "JDB"),
    "F-Temp-LORA": ("F-base", "temporal", "lora", "JDB"),
    "F-Spa-DIR": ("F-base", "spatial", "direct", "JDB"),
    "F-Temp-DIR": ("F-base", "temporal", "direct", "JDB"),
    "F-Spa-Temp-DIR": ("F-base", "all", "direct", "JDB"),
    "F-Spa-Temp-LORA": ("F-base", "all", "lora", "JDB"),
    "F-Spa-DIR-LAION": ("F-base", "spatial", "direct", "LAION-Aes"),
}


def named(folder: Path) -> dict[str, Recipe]:
    return {path.stem: load_recipe(path) for path in folder.glob("*.yaml") if not path.stem.startswith("_")}

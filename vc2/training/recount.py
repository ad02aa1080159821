"""`python -m vc2.training.recount`: count the recipes that come with this package anew, and write `counts.json`."""

from __future__ import annotations

import json
from typing import Any

from . import cost
from .recipe_files import BUNDLED, load_recipe


def recount() -> dict[str, dict[str, Any]]:
    """What `counts.json` holds: all that `recipes`, `check` and MFU need of these recipes."""
    counts = cost.stored_counts()
    for table in counts.values():
        table.clear()
    for path in sorted(BUNDLED.rglob("*.yaml")):
        if path.stem.startswith("_"):
            continue
        recipe = load_recipe(path)
        if not recipe.of_the_unet:
            continue
        config = cost.unet_config(recipe)
        cost.a100_hours(recipe)
        for frames in {1, *(frames for frames, _, _ in recipe.data.lengths if recipe.data.clips)}:
            cost.sample_flops(recipe, config, frames, again=False)
    return counts


if __name__ == "__main__":
    cost.COUNTS.write_text(json.dumps(recount(), indent=1, sort_keys=True) + "\n")

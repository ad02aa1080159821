"""Which changes of its recipe a run may go on with: none, unless they are allowed by name (`--allow optimizer.lr`)."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from .errors import RecipeError
from .recipe import Recipe

# What a checkpoint holds fits no other. (`init` is compared by the weights themselves, too.)
FIXED = ("objective", "networks", "learn", "optimizer.kind")


def allowed_changes(
    recipe: Recipe, before: str, allow: Sequence[str], folder: Path, moved: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Keys in which `recipe` differs from that of the run's checkpoint (JSON), each with (before, now); where the data
    of the media `moved` lies is not looked at. Raises RecipeError for one that is not within `allow`, or that cannot
    change in the middle of a run.
    """
    changed = recipe.differences(before, moved)
    refused = [key for key in changed if not _within(key, allow) or _within(key, FIXED)]
    if not refused:
        return changed
    advice = "put them back, or train under another name (name=...)"
    if not any(_within(key, FIXED) or key.startswith("shape") for key in refused):
        options = " ".join(f"--allow {key}" for key in refused)
        advice = f"put them back, train under another name (name=...), or go on with them from here on: {options}"
    raise RecipeError(f"{folder} was trained with another {', '.join(refused)}; {advice}")


def check_allowed(recipe: Recipe, allow: Sequence[str]) -> None:
    """Raise RecipeError for a key that no recipe has, or that cannot change in the middle of a run."""
    keys = _keys(recipe.model_dump(mode="json"))
    for key in allow:
        if _within(key, FIXED):
            raise RecipeError(f"--allow {key}: a checkpoint fits no other {key}; train under another name (name=...)")
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1, cutoff=0.5)
            raise RecipeError(f"--allow {key}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))


def _within(key: str, sections: Sequence[str]) -> bool:
    """Whether a dotted key is one of `sections`, or below one of them."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _keys(tree: dict[str, Any], above: str = "") -> list[str]:
    """All dotted keys of a recipe, sections too."""
    keys = []
    for name, value in tree.items():
        keys += [above + name, *(_keys(value, f"{above}{name}.") if isinstance(value, dict) else [])]
    return keys

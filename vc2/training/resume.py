"""What a run may go on with: the recipe, the weights and the data that it began with, and other settings or data where
they are allowed by name (`--allow optimizer.lr`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import RecipeError
from .nearest import did_you_mean
from .objective import Objective
from .recipe import Recipe, as_written, sections_of
from .sources.source import is_content

log = logging.getLogger(__name__)

# What a checkpoint holds fits no other. (`init` is compared by the weights themselves, too.)
FIXED = ("objective", "networks", "learn", "optimizer.kind")


def allowed_changes(
    recipe: Recipe, state: Mapping[str, Any], allow: Sequence[str], folder: Path
) -> dict[str, tuple[Any, Any]]:
    """Keys in which `recipe` differs from that of the run's checkpoint, each with (before, now); where data lies that
    is known by its content is not looked at. Raises RecipeError for one that is not within `allow`, or that cannot
    change in the middle of a run.
    """
    known = {medium for medium, identity in state["data"].items() if is_content(identity)}
    changed = recipe.differences(state["recipe"], known)
    refused = [key for key in changed if not _within(key, allow) or _within(key, FIXED)]
    if not refused:
        for key, (then, now) in changed.items():
            log.warning("from step %d on %s is %s, no longer %s", state["step"], key, now, then)
        return changed
    advice = "put them back, or train under another name (name=...)"
    if not any(_within(key, FIXED) or key.startswith("shape") for key in refused):
        options = " ".join(f"--allow {key}" for key in refused)
        advice = f"put them back, train under another name (name=...), or go on with them from here on: {options}"
    raise RecipeError(f"{folder} was trained with another {', '.join(refused)}; {advice}")


def check_weights(now: Mapping[str, str], before: Mapping[str, str], folder: Path) -> None:
    """Raise RecipeError where the weights that a run starts from have other fingerprints than when it began."""
    if others := [f"init.{name}" for name, value in now.items() if before.get(name) != value]:
        raise RecipeError(
            f"the weights that {folder} started from ({', '.join(others)}) are not those there now; put them back, or"
            " train under another name"
        )


def check_learning(now: Collection[str], before: Collection[str], folder: Path) -> None:
    """Raise RecipeError where what learns, by the names of its weights, is not what the checkpoint holds."""
    new, gone = sorted(set(now) - set(before)), sorted(set(before) - set(now))
    if new or gone:
        more = f"{len(new)} weights that its checkpoint has not learned ({new[0]})" if new else ""
        fewer = f"none of {len(gone)} that it has learned ({gone[0]})" if gone else ""
        raise RecipeError(
            f"{folder} would now learn {' and '.join(filter(None, (more, fewer)))}: what learns follows from `learn`,"
            " diffusion.image_temporal and whether there are clips. Put these back, or export the run and start from"
            " that under another name (init.unet=..., name=...)"
        )


def changed_data(
    objective: Objective[Any], before: Mapping[str, str], allow: Sequence[str], recipe: Recipe, folder: Path
) -> dict[str, tuple[str, str]]:
    """Sources whose files are not those that the run began with, each with (before, now). Raises RecipeError for one
    that is not within `allow`; a run that 0.2.0 began is warned alone.
    """
    others = {
        f"data.{medium}": (before[medium], now)
        for medium, now in objective.identities.items()
        if before.get(medium, now) != now and before[medium] != objective.files(medium)
    }
    refused = [key for key, (then, _) in others.items() if is_content(then) and not _within(key, allow)]
    if refused:
        raise RecipeError(
            f"the files of {' and '.join(refused)} are not those that {folder} began with; put them back, at any place,"
            " train under another name (name=...), or go on with these from here on, with other batches and other"
            f" held-out samples: {' '.join(f'--allow {key}' for key in refused)}"
        )
    if others:
        log.warning(
            "%s: the files of %s are not those that the run began with; from here on its batches are others",
            recipe.name,
            " and ".join(others),
        )
    return {f"files of {key}": identities for key, identities in others.items()}


def check_allowed(recipe: Recipe, allow: Sequence[str]) -> None:
    """Raise RecipeError for a key that no recipe has, or that cannot change in the middle of a run."""
    keys = _keys(as_written(recipe.model_dump(mode="json")))
    for key in allow:
        if _within(key, FIXED):
            raise RecipeError(f"--allow {key}: a checkpoint fits no other {key}; train under another name (name=...)")
        if key not in keys:
            raise RecipeError(f"--allow {key}: unknown key; {did_you_mean(key, keys)}")


def _within(key: str, sections: Sequence[str]) -> bool:
    """Whether a dotted key is one of `sections`, or below one of them."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _keys(node: Any, above: str = "") -> list[str]:
    """All dotted keys of a recipe, sections and sources of lists too."""
    keys = []
    for name, value in (sections_of(node) or {}).items():
        keys += [above + name, *_keys(value, f"{above}{name}.")]
    return keys

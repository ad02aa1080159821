"""Which learning rate does each way to finetune get? Chosen on the pilot's first seed by the loss that the averaged
weights have on held-out pictures, which none of the claims is about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...training.errors import RecipeError
from ...training.loop import Trainer
from ...training.sources.paper_world import world_hash
from . import rows
from .arms import BY_NAME, Arm, Place
from .encoders import fingerprints

log = logging.getLogger(__name__)

GRID = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


@dataclass(frozen=True)
class Way:
    """A way to learn, whose arms share a rate: where the walk begins, and the arms over which its losses are summed."""

    start: float
    arms: tuple[str, ...]


# Begun where an earlier pilot, with another autoencoder, had found the loss lowest.
WAYS = {"direct": Way(1e-4, ("F-Spa-DIR", "F-Spa-Temp-DIR")), "LoRA": Way(3e-3, ("F-Spa-LORA", "F-Temp-LORA"))}


def compare(place: Place, path: Path, seed: int) -> dict[str, float]:
    """The rate of each way: along the grid to the one whose neighbours are both worse. Every held-out loss is kept, a
    row in `path`. Raises RecipeError where a base is not there yet, and KeyboardInterrupt where a run was stopped.
    """
    shared = {"seed": seed, "world": world_hash(), "encoders": fingerprints(place.encoders)}

    def loss(way: Way, rate: float) -> float:
        return sum(_loss(place, path, BY_NAME[name], rate, shared) for name in way.arms)

    return {name: lowest(partial(loss, way), way.start) for name, way in WAYS.items()}


def lowest(loss: Callable[[float], float], start: float) -> float:
    """Walks along the grid, downhill, and asks for no loss that does not decide."""
    at = GRID.index(start)
    while better := [near for near in (at - 1, at + 1) if 0 <= near < len(GRID) and loss(GRID[near]) < loss(GRID[at])]:
        at = min(better, key=lambda near: loss(GRID[near]))
    return GRID[at]


def _loss(place: Place, path: Path, arm: Arm, rate: float, shared: dict[str, Any]) -> float:
    key = {"arm": arm.name, "rate": rate, **shared}
    for row in rows.read(path):
        if row.items() >= key.items():
            return row["loss"]
    start = place.folder(BY_NAME[arm.start or ""], shared["seed"]) / "model.safetensors"
    if not start.is_file():
        raise RecipeError(f"{start} is not there yet; run the pilot first")
    trial = Arm(f"{arm.name}-{rate:g}", arm.recipe, arm.start, (*arm.overrides, f"optimizer.lr={rate}"))
    trainer = Trainer(place.recipe(trial, shared["seed"]), place.root / "rates" / trial.name, place.cache)
    if not trainer.run():
        raise KeyboardInterrupt
    with trainer.ema.applied(trainer.network):  # the weights that are scored
        loss = round(trainer.objective.validate(trainer.model, trainer.accelerator)["images"], 5)
    rows.append(path, {**key, "loss": loss})
    log.info("%s at %g: held-out loss %.5f", arm.name, rate, loss)
    return loss


def table(results: list[rows.Row]) -> list[str]:
    """A line an arm, the lowest loss in bold; rates that were not tried are left out."""
    rates = [rate for rate in GRID if any(row["rate"] == rate for row in results)]
    lines = ["| arm | " + " | ".join(f"{rate:g}" for rate in rates) + " |", "| --- " * (len(rates) + 1) + "|"]
    for name in dict.fromkeys(row["arm"] for row in results):
        losses = {row["rate"]: row["loss"] for row in results if row["arm"] == name}
        best = min(losses.values())
        cells = [f"**{x:.5f}**" if x == best else f"{x:.5f}" if x is not None else "" for x in map(losses.get, rates)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines

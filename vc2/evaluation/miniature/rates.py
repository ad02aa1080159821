"""Which learning rate does each way to finetune get? Chosen on the pilot's first seed by the loss on held-out pictures,
which none of the claims is about.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ...training.errors import RecipeError
from ...training.loop import Trainer
from . import rows
from .arms import BY_NAME, Arm, Place

log = logging.getLogger(__name__)

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
# Two arms of each way to learn: direct, and LoRA.
TRIED = ("F-Spa-DIR", "F-Spa-Temp-DIR", "F-Spa-LORA", "F-Temp-LORA")
FILE = "rates"


def compare(place: Place, folder: Path, seed: int) -> list[rows.Row]:
    """The held-out loss of the arms that are tried at each rate, as `rates.jsonl` keeps it. Raises RecipeError where a
    base is not there yet, and KeyboardInterrupt where a run was stopped.
    """
    path = folder / f"{FILE}.jsonl"
    for arm in (BY_NAME[name] for name in TRIED):
        start = place.folder(BY_NAME[arm.start or ""], seed) / "model.safetensors"
        if not start.is_file():
            raise RecipeError(f"{start} is not there yet; run the pilot first")
        for rate in RATES:
            there = {(row["arm"], row["rate"]) for row in rows.read(path)}
            if (arm.name, rate) in there:
                continue
            trial = Arm(f"{arm.name}-{rate:g}", arm.recipe, arm.start, (*arm.overrides, f"optimizer.lr={rate}"))
            trainer = Trainer(place.recipe(trial, seed), place.root / "rates" / trial.name, place.cache)
            if not trainer.run():
                raise KeyboardInterrupt
            loss = trainer.objective.validate(trainer.model, trainer.accelerator)["images"]
            rows.append(path, {"arm": arm.name, "rate": rate, "seed": seed, "loss": round(loss, 5)})
            log.info("%s at %g: held-out loss %.5f", arm.name, rate, loss)
    return rows.read(path)


def table(results: list[rows.Row]) -> list[str]:
    """A line an arm, the lowest loss in bold."""
    lines = ["| arm | " + " | ".join(f"{rate:g}" for rate in RATES) + " |", "| --- " * (len(RATES) + 1) + "|"]
    for name in dict.fromkeys(row["arm"] for row in results):
        losses = {row["rate"]: row["loss"] for row in results if row["arm"] == name}
        best = min(losses.values())
        cells = [f"**{losses[r]:.5f}**" if losses[r] == best else f"{losses[r]:.5f}" for r in RATES if r in losses]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines

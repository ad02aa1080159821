"""What happened in a run, in `history.jsonl`: what it began with, its held-out losses, and what was changed on the way.

A line is a JSON object with the `step` after which it was written and one of `begun` (a name that no other run has, and
the recipe), `validation` (what the held-out losses from there on are of), `held_out` (losses by medium, of the weights,
"live", and of their "average"), `sampled` (clips were made) and `changed` (keys of the recipe, each with the value
before and after).
"""

from __future__ import annotations

import json
import logging
import math
import uuid
from pathlib import Path
from typing import Any

from ..files.output import whole
from .recipe import Recipe

log = logging.getLogger(__name__)


class History:
    """Of the run in `folder`. One process of many may write."""

    def __init__(self, folder: Path):
        self.path = folder / "history.jsonl"
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        # A line that a killed process left half-written has no end.
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in text.split("\n")[:-1]]

    def begin(self, step: int, recipe: Recipe) -> None:
        """A run goes on from `step`: what came after it will be done again, and a change of the recipe or of validation
        that no checkpoint has seen is made anew or not at all.
        """
        self.lines = [
            line for line in self.lines if line["step"] < step + (not line.keys() & {"changed", "validation"})
        ]
        begun = next((line for line in self.lines if "begun" in line), None)
        if begun is None:
            begun = {"step": step, "begun": f"{recipe.name}-{uuid.uuid4().hex[:8]}"}
            self.lines.append(begun)
        if step == begun["step"]:  # an earlier try may have failed before its first checkpoint
            begun["recipe"] = recipe.model_dump(mode="json")
        with whole(self.path) as temporary:
            temporary.write_text("".join(f"{json.dumps(line)}\n" for line in self.lines), encoding="utf-8")

    def has(self, step: int, what: str) -> bool:
        """Whether a line of that kind was written after `step`."""
        return any(line["step"] == step and what in line for line in self.lines)

    def add(self, step: int, **what: Any) -> None:
        """Write a line."""
        self.lines.append({"step": step, **what})
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{json.dumps(self.lines[-1])}\n")

    def measure(self, step: int, validation: str) -> None:
        """Held-out losses from `step` on are of `validation`, and compare with none that were of another."""
        before = next((line["validation"] for line in reversed(self.lines) if "validation" in line), None)
        if before == validation:
            return
        if before is not None:
            log.warning(
                "held-out losses from step %d on are of other samples, noise or timesteps than before, and do not"
                " compare with those: the best starts anew",
                step,
            )
        self.add(step, validation=validation)

    @property
    def name(self) -> str:
        """The run's own, by which trackers know it again; before it has begun, its folder's."""
        return next((line["begun"] for line in self.lines if "begun" in line), self.path.parent.name)

    def best(self) -> int | None:
        """The step of the least held-out loss of the averaged weights, the mean over the media, among the last losses
        that compare with each other; None where there was none.
        """
        losses: dict[int, float] = {}
        before = now = None  # what they are of; a history may begin without saying so
        for line in self.lines:
            now = line.get("validation", now)
            if "held_out" in line and math.isfinite(loss := _mean(line["held_out"]["average"])):
                if before not in (None, now):
                    losses.clear()  # only now, so that the best of before stays until there is another
                losses[line["step"]], before = loss, now
        return min(losses, key=lambda step: losses[step]) if losses else None


def _mean(losses: dict[str, float]) -> float:
    return sum(losses.values()) / len(losses)

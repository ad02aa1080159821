"""What could not be used: broken samples, and steps whose loss or gradient is not finite. Too many end a run."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path

import torch

from ..files.output import whole
from .errors import TrainingError
from .objective import AnyBatch
from .recipe import Recipe
from .sources import source

log = logging.getLogger(__name__)

PATIENCE = 5  # non-finite steps in a row before the run stops


class NonFiniteError(TrainingError):
    """The loss or its gradient stopped being a number, several steps in a row."""


class BrokenDataError(TrainingError):
    """More of the data was broken than the recipe allows."""


class Tally:
    """Counts of a run in `folder`, where `skipped.txt` names each sample that could not be used."""

    def __init__(self, recipe: Recipe, folder: Path):
        self.recipe, self.folder = recipe, folder
        self.counts = {"read": 0, "broken": 0, "non_finite": 0}
        self.in_a_row = 0  # non-finite steps

    def samples(self, step: int, batch: AnyBatch, broken: int) -> None:
        """Count the samples of a step, of which `broken` over all processes were replaced. Raises BrokenDataError."""
        if batch.skipped:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "skipped.txt", "a", encoding="utf-8") as file:
                file.writelines(f"step {step}: {reason}\n" for reason in batch.skipped)
        self.counts["read"] += batch.count + broken
        self.counts["broken"] += broken
        share = self.counts["broken"] / self.counts["read"]
        if self.counts["read"] >= source.ENOUGH and share > self.recipe.data.broken_share:
            raise BrokenDataError(
                f"{self.counts['broken']} of {self.counts['read']} samples ({share:.0%}) could not be used, more than"
                f" data.broken_share ({self.recipe.data.broken_share:.0%}); {self.folder / 'skipped.txt'} names them"
            )

    def step(self, step: int, batch: AnyBatch, loss: float, norm: float, process: int) -> None:
        """Count a step that has no finite loss and gradient norm. Raises NonFiniteError, and writes the batch, where
        there are too many in a row.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            return
        self.counts["non_finite"] += 1
        self.in_a_row += 1
        log.warning("step %d skipped: loss %s, gradient norm %s", step, loss, norm)
        if self.in_a_row >= PATIENCE:
            path = self.folder / f"non-finite-step{step}-process{process}.pt"
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save(batch.content(), path)
            raise NonFiniteError(
                f"{PATIENCE} steps in a row up to {step} had no finite loss and gradient; the last batch is in {path}."
                " Look at that data; or export the last checkpoint, which is from before, and start from it under"
                " another name with a lower optimizer.lr"
            )

    def forget_from(self, step: int) -> None:
        """Take samples from `skipped.txt` whose steps will be done again."""
        path = self.folder / "skipped.txt"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            before = [line for line in lines if (at := re.match(r"step (\d+):", line)) and int(at[1]) < step]
            with whole(path) as temporary:
                temporary.write_text("".join(before), encoding="utf-8")

    def state_dict(self) -> dict:
        return {"counts": dict(self.counts), "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict) -> None:
        self.counts, self.in_a_row = dict(state["counts"]), state["in_a_row"]

"""What a run is at a step: all that it trains and counts, saved as a checkpoint and gone on from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from . import checkpoint, parallel
from .build import build_objective, build_optimizer
from .ema import EMA
from .errors import RecipeError
from .history import History
from .meter import Meter
from .partition import train_what_learns
from .recipe import Recipe
from .resume import allowed_changes, changed_data, check_allowed, check_learning, check_weights
from .saving import HostCopies, Writer
from .tally import Tally

log = logging.getLogger(__name__)


class RunState:
    """The networks, the optimizer, the average and the counts of a run in `folder`, from its newest checkpoint where
    there is one. `allow`: keys in which the recipe may differ from that of this checkpoint.
    """

    def __init__(self, recipe: Recipe, folder: Path, cache: Path | None = None, allow: Sequence[str] = ()):
        self.recipe = recipe = checkpoint.as_begun(recipe, folder)
        check_allowed(recipe, allow)
        self.folder, self.allow = folder, allow
        self.accelerator = parallel.start(recipe, folder)
        self.objective = build_objective(recipe, cache or folder.parent / "cache", self.accelerator.device)
        self.model = train_what_learns(parallel.distribute(self.objective.model, recipe, self.accelerator))
        self.network: nn.Module = self.accelerator.unwrap_model(self.model)
        self.optimizer = build_optimizer(recipe, self.network)
        self.learning = [p for p in self.network.parameters() if p.requires_grad]
        self.ema = EMA(self.network, recipe.optimizer.ema)
        self.meter = Meter(recipe, self.objective, self.accelerator)
        self.tally = Tally(recipe, folder)
        self.copies, self.writer = HostCopies(self.accelerator.device), Writer()
        self.history = History(folder)
        self.step = 0
        self.saved = -1  # the step of the last checkpoint
        self.changed: dict[str, tuple[Any, Any]] = {}  # since the checkpoint: keys of the recipe, and files
        self._resume()

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        if self.accelerator.is_main_process:
            checkpoint.clean(self.checkpoints)
        state = checkpoint.latest(self.checkpoints)
        # Before any process loads it, since sharded ones load together.
        steps = parallel.gather_numbers(state["step"] if state else 0, self.accelerator)
        if len(set(steps)) > 1:
            raise RecipeError(
                f"the processes found checkpoints of different steps in {self.checkpoints}: {steps}; every machine must"
                " see the same folder"
            )
        if state:
            self.load_state_dict(state)
            self.saved = self.step
            log.info("%s goes on from step %d", self.recipe.name, self.step)
        if self.accelerator.is_main_process:
            self.tally.forget_from(self.step)
        self.accelerator.wait_for_everyone()

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def save(self, wait: bool = True) -> None:
        """Write a checkpoint; without `wait` that goes on beside the run, and the next save waits for it. Raises
        OSError on all processes where the first cannot, now or the last time.
        """
        self._finish_saving()
        state = self.state_dict()
        if self.accelerator.is_main_process:
            keep, stays = self.recipe.keep, self._stays
            self.writer.write(partial(checkpoint.save, self.checkpoints, self.step, state, keep, stays))
        self.saved = self.step
        if wait:
            self._finish_saving()

    def _finish_saving(self) -> None:
        """Every process must call it. Raises OSError on all of them where the first could not save."""
        failed = True
        try:
            self.writer.wait()
            failed = False
        finally:
            # All ask at once, so that none waits for one that is gone.
            failures = sum(parallel.gather_numbers(int(failed), self.accelerator))
        if failures:
            raise OSError("the first process could not save a checkpoint; its message says why")

    def _stays(self, step: int) -> bool:
        """Whether the checkpoint of a step is kept for good, or as long as it is the best."""
        milestone = self.recipe.keep_every > 0 and step % self.recipe.keep_every == 0
        return milestone or step == self.history.best()

    def state_dict(self) -> dict:
        """Copies, whole, on the first process; nothing changes them until the next call."""
        keep, copy = self.accelerator.is_main_process, self.copies.copy
        self.copies.begin()
        state = {
            "step": self.step,
            "recipe": self.recipe.model_dump_json(),
            **self.tally.state_dict(),
            "start": self.objective.fingerprints,
            "data": self.objective.identities,
            "figures": {name: list(values) for name, values in self.meter.sums.items()},
            "ema": self.ema.state_dict(keep, copy),
            **checkpoint.gather(self.network, self.optimizer, keep, copy),
        }
        self.copies.finish()
        return state

    def load_state_dict(self, state: dict) -> None:
        """Raises RecipeError where it is of another recipe than is allowed, or from other weights."""
        self.changed = allowed_changes(self.recipe, state, self.allow, self.folder)
        check_weights(self.objective.fingerprints, state["start"], self.folder)
        self.changed |= changed_data(self.objective, state["data"], self.allow, self.recipe, self.folder)
        check_learning(self.ema.shadow, state["model"], self.folder)
        self.step = state["step"]
        self.tally.load_state_dict(state)
        self.meter.sums = dict(state["figures"])
        checkpoint.scatter(self.network, self.optimizer, state)
        self.ema.load_state_dict(state["ema"])

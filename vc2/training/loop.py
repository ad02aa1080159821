"""The training loop: one step after another, resumable at any of them."""

from __future__ import annotations

import logging
import math
import signal
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from . import checkpoint, objective
from .config import Recipe, RecipeError
from .ema import EMA
from .partition import train_what_learns

log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """The loss or its gradient stopped being a number, several steps in a row."""


class Trainer:
    """Runs a recipe in `folder`: `checkpoints/`, TensorBoard events, and at the end `model.safetensors` with averaged weights."""

    PATIENCE = 5  # non-finite steps in a row before the run stops

    def __init__(self, recipe: Recipe, folder: Path):
        self.recipe, self.folder = recipe, folder
        self.accelerator = Accelerator()
        self.objective = objective.build(recipe, folder.parent / "cache", self.accelerator.device)
        self.model = train_what_learns(self.objective.model)
        config = recipe.optimizer
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, config.lr, config.betas, weight_decay=config.weight_decay, fused=True)
        self.ema = EMA(self.model, config.ema)
        self.step, self.skipped, self.stop = 0, 0, False
        if state := checkpoint.latest(folder / "checkpoints"):
            self.load_state_dict(state)
            log.info("resumed %s at step %d", recipe.name, self.step)

    def learning_rate(self, step: int) -> float:
        config = self.recipe.optimizer
        if step < config.warmup:
            return config.lr * (step + 1) / config.warmup
        if config.final_lr is None:
            return config.lr
        progress = (step - config.warmup) / max(1, self.recipe.steps - config.warmup)
        return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def train_step(self) -> dict[str, float]:
        """One update: everything random in it comes from (seed, step)."""
        seed = (self.recipe.seed << 32) + self.step
        torch.manual_seed(seed)  # dropout
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        loss, figures = self.objective.loss(torch.Generator().manual_seed(seed))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], self.recipe.optimizer.clip)
        if torch.isfinite(loss) and torch.isfinite(norm):
            self.optimizer.step()
            self.ema.update(self.model)
            self.skipped = 0
        else:
            self.skipped += 1
            log.warning("step %d skipped: loss %s, gradient norm %s", self.step, float(loss.detach()), float(norm))
            if self.skipped >= self.PATIENCE:
                raise NonFiniteError(f"{self.PATIENCE} steps in a row up to {self.step} had no finite loss and gradient; lower optimizer.lr or check the data")
        self.optimizer.zero_grad()
        self.step += 1
        return {"loss": float(loss.detach()), "grad_norm": float(norm), **figures}

    def run(self) -> bool:
        """Train to the recipe's last step and export. Returns False where a signal stopped it first (the state is saved)."""
        handlers = {name: signal.signal(name, self._on_signal) for name in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self._run()
        finally:
            for name, handler in handlers.items():
                signal.signal(name, handler)

    def _run(self) -> bool:
        averages: dict[str, float] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        with SummaryWriter(self.folder) as events, tqdm(total=self.recipe.steps, initial=self.step, desc=self.recipe.name, unit="step") as bar:
            while self.step < self.recipe.steps and not self.stop:
                for key, value in self.train_step().items():
                    averages[key] = value if key not in averages else 0.98 * averages[key] + 0.02 * value
                bar.update()
                if self.step % self.recipe.log_every == 0:
                    bar.set_postfix({key: f"{value:.4g}" for key, value in averages.items()})
                    for key, value in averages.items():
                        events.add_scalar(key, value, self.step)
                if self.step % self.recipe.save_every == 0 or self.step == self.recipe.steps or self.stop:
                    self.save()
        if self.stop and self.step < self.recipe.steps:
            log.info("stopped at step %d; run the same command to go on", self.step)
            return False
        self.export()
        return True

    def export(self) -> Path:
        path = self.folder / "model.safetensors"
        self.objective.export(path, self.ema.weights(self.model), self.recipe)
        log.info("wrote %s", path)
        return path

    def save(self) -> None:
        checkpoint.save(self.folder / "checkpoints", self.step, self.state_dict())

    def state_dict(self) -> dict:
        return {
            "step": self.step,
            "recipe": self.recipe.model_dump_json(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        changed = self.recipe.differences(state["recipe"])
        if changed:
            raise RecipeError(f"{self.folder} was trained with another {', '.join(changed)}; put them back, or train under another name (name=...)")
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])

    def _on_signal(self, number: int, frame) -> None:
        log.info("received %s: saving, then stopping", signal.Signals(number).name)
        self.stop = True

"""The training loop: one step after another, resumable at any of them."""

from __future__ import annotations

import logging
import math
import re
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from . import checkpoint, objective, parallel, preview, validate
from .config import Recipe, RecipeError, TrainingError
from .data import sources
from .data.batches import ANSWERED, Sample
from .diffusion import DiffusionObjective
from .ema import EMA
from .meter import Meter
from .partition import train_what_learns

log = logging.getLogger(__name__)


class NonFiniteError(TrainingError):
    """The loss or its gradient stopped being a number, several steps in a row."""


class BrokenDataError(TrainingError):
    """More of the data was broken than the recipe allows."""


class Trainer:
    """Runs a recipe in `folder`: `checkpoints/`, tracker events, `samples/`, `skipped.txt`, and at the end
    `model.safetensors` with averaged weights.
    """

    PATIENCE = 5  # non-finite steps in a row before the run stops

    def __init__(self, recipe: Recipe, folder: Path, cache: Path | None = None):
        self.recipe, self.folder = recipe, folder
        self.accelerator = parallel.start(recipe, folder)
        self.objective = objective.build(recipe, cache or folder.parent / "cache", self.accelerator.device)
        if recipe.samples.every and isinstance(self.objective, DiffusionObjective):
            validate.sample_settings(self.objective)  # now, and not when the first sample is due
        self.model = train_what_learns(parallel.distribute(self.objective.model, recipe, self.accelerator))
        self.network: nn.Module = self.accelerator.unwrap_model(self.model)
        self.optimizer = build_optimizer(recipe, self.network)
        self.learning = [p for p in self.network.parameters() if p.requires_grad]
        self.ema = EMA(self.network, recipe.optimizer.ema)
        self.step, self.in_a_row = 0, 0
        self.counts = {"read": 0, "broken": 0, "non_finite": 0}
        self.meter = Meter(recipe, self.network, self.accelerator)
        if self.accelerator.is_main_process:
            checkpoint.clean(self.checkpoints)
        self.asked_to_stop = self.asked_to_save = False  # by a signal to this process
        self.stopping = self.saving = False  # what all processes have agreed on
        state = checkpoint.latest(self.checkpoints)
        self._check_together(state["step"] if state else 0)
        if state:
            self.load_state_dict(state)
            log.info("%s goes on from step %d", recipe.name, self.step)
        if self.accelerator.is_main_process:
            self._forget_skipped()
        self.accelerator.wait_for_everyone()

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def learning_rate(self, step: int) -> float:
        config = self.recipe.optimizer
        if step < config.warmup:
            return config.lr * (step + 1) / config.warmup
        if config.final_lr is None:
            return config.lr
        progress = (step - config.warmup) / max(1, self.recipe.steps - config.warmup)
        return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def train_step(self, batch: Any) -> dict[str, float]:
        """One update. Everything random in it follows from (seed, step)."""
        torch.manual_seed(
            (self.recipe.seed << 32) + self.step * self.accelerator.num_processes + self.accelerator.process_index
        )  # dropout
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        parts = self.objective.parts(batch)
        loss = torch.zeros((), device=self.accelerator.device)
        figures: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=self.accelerator.device))
        for k, part in enumerate(parts):
            with parallel.accumulate(self.model, self.accelerator, last=k == len(parts) - 1):
                with parallel.autocast(self.recipe, self.accelerator):
                    part_loss, part_figures = self.objective.loss(self.model, part)
                (part_loss / len(parts)).backward()
            loss += part_loss.detach() / len(parts)
            for name, value in part_figures.items():
                figures[name] += value / len(parts)
        norm = torch.nn.utils.clip_grad_norm_(self.learning, self.recipe.optimizer.clip)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        # One message between the processes a step: the loss of all, how much data was broken, whether one was asked to
        # save or to stop, and the figures.
        words = [
            torch.tensor(float(v), device=loss.device)
            for v in (len(batch.skipped), self.asked_to_save, self.asked_to_stop)
        ]
        message = torch.stack([loss, *words, *figures.values()])
        mean_loss, broken, save, stop, *means = self.accelerator.reduce(message, "mean").tolist()
        self.saving, self.stopping = save > 0, stop > 0
        self.asked_to_save = self.asked_to_save and not self.saving
        if finite := math.isfinite(mean_loss) and math.isfinite(float(norm)):
            self.optimizer.step()
            self.ema.update(self.network)
        self.optimizer.zero_grad()
        self._count(finite, batch, round(broken * self.accelerator.num_processes), mean_loss, float(norm))
        self.step += 1
        return {"loss": mean_loss, "grad_norm": float(norm), **dict(zip(figures, means, strict=True))}

    def _count(self, finite: bool, batch: Any, broken: int, loss: float, norm: float) -> None:
        """Keep the tally of broken samples and of steps that were skipped, and stop the run where there are too many."""
        if batch.skipped:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "skipped.txt", "a", encoding="utf-8") as file:
                file.writelines(f"step {self.step}: {name}\n" for name in batch.skipped)
        self.counts["read"] += batch.count + broken
        self.counts["broken"] += broken
        share = self.counts["broken"] / self.counts["read"]
        if self.counts["read"] >= sources.ENOUGH and share > self.recipe.data.broken_share:
            raise BrokenDataError(
                f"{self.counts['broken']} of {self.counts['read']} samples ({share:.0%}) could not be used, more than"
                f" data.broken_share ({self.recipe.data.broken_share:.0%}); {self.folder / 'skipped.txt'} names them"
            )
        if finite:
            self.in_a_row = 0
            return
        self.counts["non_finite"] += 1
        self.in_a_row += 1
        log.warning("step %d skipped: loss %s, gradient norm %s", self.step, loss, norm)
        if self.in_a_row >= self.PATIENCE:
            path = self.folder / f"non-finite-step{self.step}-process{self.accelerator.process_index}.pt"
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save(batch.content(), path)
            raise NonFiniteError(
                f"{self.PATIENCE} steps in a row up to {self.step} had no finite loss and gradient; the last batch is"
                f" in {path}. Look at that data; or export the last checkpoint, which is from before, and start from it"
                " under another name with a lower optimizer.lr"
            )

    def run(self) -> bool:
        """Train to the recipe's last step and export. Returns False where a signal stopped it first (the state is
        saved).

        SIGINT, SIGTERM and SIGHUP save and stop, SIGUSR1 saves and goes on; one process of many being told is enough.
        """
        handlers = {name: signal.signal(name, self._on_signal) for name in ANSWERED}
        try:
            return self._run()
        finally:
            for name, handler in handlers.items():
                signal.signal(name, handler)

    def _run(self) -> bool:
        recipe, main = self.recipe, self.accelerator.is_main_process
        # What a run logged that was killed after its last checkpoint will be logged again.
        self.accelerator.init_trackers(recipe.name, init_kwargs={"tensorboard": {"purge_step": self.step + 1}})
        samples: dict[str, list[Sample]] = (
            self.objective.held_out()
            if isinstance(self.objective, DiffusionObjective) and recipe.validation.every
            else {}
        )
        samples = {medium: found for medium, found in samples.items() if found}
        batches = self.objective.batches(self.step, self.accelerator.process_index, self.accelerator.num_processes)
        meter = self.meter
        with tqdm(
            total=recipe.steps, initial=self.step, desc=recipe.name, unit="step", disable=not main, dynamic_ncols=True
        ) as bar:
            while self.step < recipe.steps and not self.stopping:
                meter.wait()
                batch = next(batches)
                meter.compute(batch)
                if self.step == 0 and main:
                    preview.write(self.objective, batch, self.folder)
                figures = self.train_step(batch)
                meter.done(figures)
                bar.update()
                if self.step % recipe.log_every == 0 or self.step == recipe.steps:
                    averages = meter.averages() | {
                        "lr": self.learning_rate(self.step - 1),
                        **{f"data/{k}": float(v) for k, v in self.counts.items()},
                    }
                    bar.set_postfix({k: f"{v:.4g}" for k, v in averages.items() if k in SHOWN})
                    self.accelerator.log(averages, step=self.step)
                # First of all: whatever goes wrong below, the step is kept.
                if self.step % recipe.save_every == 0 or self.step == recipe.steps or self.saving or self.stopping:
                    self.save()
                if samples and self._due(recipe.validation.every):
                    assert isinstance(self.objective, DiffusionObjective)
                    found = validate.held_out_loss(self.objective, self.model, self.accelerator, samples)
                    self.accelerator.log(found, step=self.step)
                    if main:
                        summary = ", ".join(f"{medium} {found[f'validation/{medium}']:.4f}" for medium in samples)
                        tqdm.write(f"step {self.step}: held-out loss {summary}")
                if isinstance(self.objective, DiffusionObjective) and self._due(recipe.samples.every):
                    self.ema.swap(self.network)
                    try:
                        validate.sample_clips(
                            self.objective,
                            self.model,
                            self.accelerator,
                            self.folder / "samples" / f"step-{self.step:08d}",
                        )
                    except RuntimeError as error:
                        if not self.asked_to_stop:
                            raise
                        log.warning("a sample was not written: %s", error)  # schedulers tell ffmpeg to stop, too
                    finally:
                        self.ema.swap(self.network)
        finished = self.step >= recipe.steps
        if finished:
            self.export()
        else:
            log.info("stopped at step %d; the same command goes on from there", self.step)
        self.accelerator.end_training()  # and with it what the processes have between them
        return finished

    def _due(self, every: int) -> bool:
        """Every so many steps (0: never), and at the last."""
        return every > 0 and (self.step % every == 0 or self.step == self.recipe.steps)

    def export(self) -> None:
        """Write the averaged weights; see the objective for the files."""
        weights = self.ema.weights(keep=self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            for path in self.objective.export(self.folder, weights, self.step):
                log.info("wrote %s", path)
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        state = self.state_dict()
        failure = 0
        if self.accelerator.is_main_process:
            try:
                checkpoint.save(self.checkpoints, self.step, state, self.recipe.keep)
            except OSError:
                failure = 1
                raise
            finally:
                self._agree(failure)
        elif self._agree(0):
            raise OSError(f"the first process could not save step {self.step}; its message says why")

    def _agree(self, failure: int) -> bool:
        """Whether the first process failed; all processes ask at once, so that none waits for one that is gone."""
        return bool(self.accelerator.reduce(torch.tensor(float(failure), device=self.accelerator.device), "sum").item())

    def state_dict(self) -> dict:
        keep = self.accelerator.is_main_process
        return {
            "step": self.step,
            "recipe": self.recipe.model_dump_json(),
            "counts": dict(self.counts),
            "in_a_row": self.in_a_row,
            "start": self.objective.start,
            "data": self.objective.data,
            "figures": self.meter.sums,
            "ema": self.ema.state_dict(keep),
            **checkpoint.gather(self.network, self.optimizer, keep),
        }

    def load_state_dict(self, state: dict) -> None:
        changed = self.recipe.differences(state["recipe"])
        if changed:
            raise RecipeError(
                f"{self.folder} was trained with another {', '.join(changed)}; put them back, or train under another"
                " name (name=...)"
            )
        if others := [
            f"init.{name}" for name, value in self.objective.start.items() if state["start"].get(name) != value
        ]:
            raise RecipeError(
                f"the weights that {self.folder} started from ({', '.join(others)}) are not those there now; put them"
                " back, or train under another name"
            )
        if others := [
            f"data.{medium}" for medium, value in self.objective.data.items() if state["data"].get(medium) != value
        ]:
            log.warning(
                "%s: the files of %s are not those that the run began with; from here on its batches are others",
                self.recipe.name,
                " and ".join(others),
            )
        self.step, self.counts, self.in_a_row = state["step"], dict(state["counts"]), state["in_a_row"]
        self.meter.sums = dict(state["figures"])
        checkpoint.scatter(self.network, self.optimizer, state)
        self.ema.load_state_dict(state["ema"])

    def _forget_skipped(self) -> None:
        """Names of broken samples from steps that will be done again."""
        path = self.folder / "skipped.txt"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if (found := re.match(r"step (\d+):", line)) and int(found[1]) < self.step]
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(kept), encoding="utf-8")
            temporary.replace(path)

    def _check_together(self, step: int) -> None:
        """Every process must have found the same checkpoint, which folders that are not shared would prevent; before
        any loads it, since sharded ones load together.
        """
        steps = self.accelerator.gather(torch.tensor([step], device=self.accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise RecipeError(
                f"the processes found checkpoints of different steps in {self.checkpoints}: {steps}; every machine must"
                " see the same folder"
            )

    def _on_signal(self, number: int, frame) -> None:
        if number == signal.SIGUSR1:
            self.asked_to_save = True
        else:
            self.asked_to_stop = True
        log.info(
            "received %s: saving%s at the end of this step",
            signal.Signals(number).name,
            "" if number == signal.SIGUSR1 else " and stopping",
        )


SHOWN = ("loss", "grad_norm", "clips/s", "mfu", "data_wait")


def build_optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """AdamW over what learns. Raises RecipeError for nothing that learns, or 8 bits without bitsandbytes."""
    config = recipe.optimizer
    learning = [p for p in network.parameters() if p.requires_grad]
    if not learning:
        raise RecipeError(f"{recipe.name}: nothing learns; look at learn.part, learn.how and diffusion.image_temporal")
    if config.kind == "adamw":
        return torch.optim.AdamW(learning, config.lr, config.betas, weight_decay=config.weight_decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise RecipeError(
            f"optimizer.kind adamw8bit needs bitsandbytes ({error}); pip install bitsandbytes, or use adamw"
        ) from error
    return AdamW8bit(learning, config.lr, config.betas, weight_decay=config.weight_decay)

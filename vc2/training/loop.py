"""The training loop: one step after another, resumable at any of them."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import checkpoint, parallel
from .build import build_objective, build_optimizer
from .ema import EMA
from .errors import RecipeError, TrainingError
from .meter import Meter
from .partition import train_what_learns
from .recipe import Recipe
from .signals import Signals
from .tally import Tally

log = logging.getLogger(__name__)

PROGRESS_BAR = ("loss", "grad_norm", "clips/s", "mfu", "data_wait")


class Trainer:
    """Runs a recipe in `folder`: `checkpoints/`, tracker events, `samples/`, `skipped.txt`, and at the end
    `model.safetensors` with averaged weights.
    """

    def __init__(self, recipe: Recipe, folder: Path, cache: Path | None = None):
        self.recipe, self.folder = recipe, folder
        self.accelerator = parallel.start(recipe, folder)
        self.objective = build_objective(recipe, cache or folder.parent / "cache", self.accelerator.device)
        self.model = train_what_learns(parallel.distribute(self.objective.model, recipe, self.accelerator))
        self.network: nn.Module = self.accelerator.unwrap_model(self.model)
        self.optimizer = build_optimizer(recipe, self.network)
        self.learning = [p for p in self.network.parameters() if p.requires_grad]
        self.ema = EMA(self.network, recipe.optimizer.ema)
        self.meter = Meter(recipe, self.objective, self.accelerator)
        self.tally = Tally(recipe, folder)
        self.signals = Signals()  # to this process
        self.stopping = self.saving = False  # what all processes have agreed on
        self.step = 0
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
            log.info("%s goes on from step %d", self.recipe.name, self.step)
        if self.accelerator.is_main_process:
            self.tally.forget_from(self.step)
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
        """One update; returns its figures. Everything random in it follows from (seed, step)."""
        self._seed_dropout()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        means = self._backward(batch)
        norm = self._clip_gradients()
        figures, broken = self._exchange(means, len(batch.skipped))
        if math.isfinite(figures["loss"]) and math.isfinite(norm):
            self.optimizer.step()
            self.ema.update(self.network)
        self.optimizer.zero_grad()
        self.tally.samples(self.step, batch, broken)
        self.tally.step(self.step, batch, figures["loss"], norm, self.accelerator.process_index)
        self.step += 1
        return figures | {"grad_norm": norm}

    def _seed_dropout(self) -> None:
        """Another number in each step of each process."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        torch.manual_seed((self.recipe.seed << 32) + self.step * world + rank)

    def _backward(self, batch: Any) -> dict[str, Tensor]:
        """The gradients of the whole batch, micro-batch after micro-batch; returns its mean loss and figures."""
        micro_batches = self.objective.split(batch)
        means: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.accelerator.device))
        for k, micro_batch in enumerate(micro_batches, 1):
            with parallel.accumulate(self.model, self.accelerator, last=k == len(micro_batches)):
                with parallel.autocast(self.recipe, self.accelerator):
                    loss, figures = self.objective.loss(self.model, micro_batch)
                (loss / len(micro_batches)).backward()
            for name, value in {"loss": loss.detach(), **figures}.items():
                means[name] += value / len(micro_batches)
        return means

    def _clip_gradients(self) -> float:
        """Returns the norm of the gradient before."""
        norm = torch.nn.utils.clip_grad_norm_(self.learning, self.recipe.optimizer.clip)
        return float(parallel.unsharded(norm))

    def _exchange(self, figures: dict[str, Tensor], broken: int) -> tuple[dict[str, float], int]:
        """The one message between the processes in a step: the mean of their figures, how many samples were broken in
        all, and whether one of them was asked to save or to stop.
        """
        mine = {"broken": broken, "save": self.signals.save, "stop": self.signals.stop}
        means = parallel.mean({**figures, **mine}, self.accelerator)
        self.saving, self.stopping = means.pop("save") > 0, means.pop("stop") > 0
        self.signals.save = self.signals.save and not self.saving
        return means, round(means.pop("broken") * self.accelerator.num_processes)

    def run(self) -> bool:
        """Train to the recipe's last step and export. Returns False where a signal stopped it first (the state is
        saved).

        SIGINT, SIGTERM and SIGHUP save and stop, SIGUSR1 saves and goes on; one process of many being told is enough.
        """
        with self.signals.answered():
            try:
                return self._run()
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"step {self.step} ran out of memory ({str(error).splitlines()[0]}); try compute.micro_batch=1 or"
                    " compute.gradient_checkpointing=true, and see what `check` says"
                ) from error
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise TrainingError(
                    f"a process that reads data was ended at step {self.step} ({error}); if nobody did that, memory"
                    " ran out: lower data.workers, or give the container more --shm-size. The same command goes on"
                ) from error

    def _run(self) -> bool:
        recipe, accelerator = self.recipe, self.accelerator
        # What a run logged that was killed after its last checkpoint will be logged again.
        accelerator.init_trackers(recipe.name, init_kwargs={"tensorboard": {"purge_step": self.step + 1}})
        batches = self.objective.batches(self.step, accelerator.process_index, accelerator.num_processes)
        bar = tqdm(
            total=recipe.steps,
            initial=self.step,
            desc=recipe.name,
            unit="step",
            disable=not accelerator.is_main_process,
            dynamic_ncols=True,
        )
        with closing(batches), bar:
            while self.step < recipe.steps and not self.stopping:
                self.meter.wait()
                batch = next(batches)
                self.meter.compute(batch)
                if self.step == 0 and accelerator.is_main_process:
                    self.objective.preview(batch, self.folder)
                self.meter.done(self.train_step(batch))
                bar.update()
                if self._due(recipe.log_every):
                    self._log(bar)
                # First of all: whatever goes wrong below, the step is kept.
                if self._due(recipe.save_every) or self.saving or self.stopping:
                    self.save()
                if self._due(recipe.validation.every):
                    self._validate()
                if self._due(recipe.samples.every):
                    self._sample()
        finished = self.step >= recipe.steps
        if finished:
            self.export()
        else:
            log.info("stopped at step %d; the same command goes on from there", self.step)
        # DDP first: were it the last to know the process group, its destructor would wait, with the interpreter's lock,
        # for a thread that may want that.
        self.model = self.network
        accelerator.free_memory()
        accelerator.end_training()  # and with it what the processes have between them
        return finished

    def _due(self, every: int) -> bool:
        """Every so many steps (0: never), and at the last."""
        return every > 0 and (self.step % every == 0 or self.step == self.recipe.steps)

    def _log(self, bar: tqdm) -> None:
        figures = self.meter.averages() | {"lr": self.learning_rate(self.step - 1)}
        figures |= {f"data/{name}": float(count) for name, count in self.tally.counts.items()}
        bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items() if name in PROGRESS_BAR})
        self.accelerator.log(figures, step=self.step)

    def _validate(self) -> None:
        losses = self.objective.validate(self.model, self.accelerator)
        if losses:
            self.accelerator.log({f"validation/{name}": loss for name, loss in losses.items()}, step=self.step)
        if losses and self.accelerator.is_main_process:
            media = [medium for medium in self.objective.identities if medium in losses]
            tqdm.write(f"step {self.step}: held-out loss " + ", ".join(f"{m} {losses[m]:.4f}" for m in media))

    def _sample(self) -> None:
        """With the averaged weights."""
        with self.ema.applied(self.network):
            try:
                folder = self.folder / "samples" / f"step-{self.step:08d}"
                self.objective.sample(self.model, self.accelerator, folder)
            except RuntimeError as error:
                if not self.signals.stop:
                    raise
                log.warning("a sample was not written: %s", error)  # schedulers tell ffmpeg to stop, too

    def export(self) -> None:
        """Write the averaged weights; see the objective for the files."""
        weights = self.ema.weights(keep=self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            for path in self.objective.export(self.folder, weights, self.step):
                log.info("wrote %s", path)
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Write a checkpoint. Raises OSError on all processes where the first cannot."""
        state, failed = self.state_dict(), False
        try:
            if self.accelerator.is_main_process:
                checkpoint.save(self.checkpoints, self.step, state, self.recipe.keep)
        except OSError:
            failed = True
            raise
        finally:
            # All ask at once, so that none waits for one that is gone.
            failures = sum(parallel.gather_numbers(int(failed), self.accelerator))
        if failures:
            raise OSError(f"the first process could not save step {self.step}; its message says why")

    def state_dict(self) -> dict:
        keep = self.accelerator.is_main_process
        return {
            "step": self.step,
            "recipe": self.recipe.model_dump_json(),
            **self.tally.state_dict(),
            "start": self.objective.fingerprints,
            "data": self.objective.identities,
            "figures": self.meter.sums,
            "ema": self.ema.state_dict(keep),
            **checkpoint.gather(self.network, self.optimizer, keep),
        }

    def load_state_dict(self, state: dict) -> None:
        """Raises RecipeError where it is of another recipe, or from other weights."""
        if changed := self.recipe.differences(state["recipe"]):
            raise RecipeError(
                f"{self.folder} was trained with another {', '.join(changed)}; put them back, or train under another"
                " name (name=...)"
            )
        if others := _changed(self.objective.fingerprints, state["start"], "init"):
            raise RecipeError(
                f"the weights that {self.folder} started from ({', '.join(others)}) are not those there now; put them"
                " back, or train under another name"
            )
        if others := _changed(self.objective.identities, state["data"], "data"):
            log.warning(
                "%s: the files of %s are not those that the run began with; from here on its batches are others",
                self.recipe.name,
                " and ".join(others),
            )
        self.step = state["step"]
        self.tally.load_state_dict(state)
        self.meter.sums = dict(state["figures"])
        checkpoint.scatter(self.network, self.optimizer, state)
        self.ema.load_state_dict(state["ema"])


def _changed(now: dict[str, str], before: dict[str, str], section: str) -> list[str]:
    return [f"{section}.{name}" for name, value in now.items() if before.get(name) != value]

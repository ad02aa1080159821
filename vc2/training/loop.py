"""The training loop: one step after another, resumable at any of them."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function
from tqdm import tqdm

from ..files.video import write_video
from . import parallel, trackers
from .errors import TrainingError
from .recipe import Recipe
from .signals import Signals
from .state import RunState

log = logging.getLogger(__name__)

PROGRESS_BAR = ("loss", "grad_norm", "clips/s", "mfu", "data_wait")


@contextmanager
def memory_for(what: str, advice: str) -> Iterator[None]:
    """Where memory runs out within, the message says what for, and what needs less. Raises TrainingError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"{what} ran out of memory ({str(error).splitlines()[0]}); try {advice}") from error


class Trainer(RunState):
    """Runs a recipe in `folder`: `checkpoints/`, `history.jsonl`, tracker events, `samples/`, `skipped.txt`, and at the
    end `model.safetensors` with averaged weights. `allow`: keys in which the recipe may differ from that of the
    checkpoint that it goes on from.
    """

    def __init__(self, recipe: Recipe, folder: Path, cache: Path | None = None, allow: Sequence[str] = ()):
        super().__init__(recipe, folder, cache, allow)
        self.signals = Signals()  # to this process
        self.stopping = self.saving = False  # what all processes have agreed on
        self.lost = 0  # clips of the last samples, to signals

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
        with record_function("clip gradients"):
            norm = self._clip_gradients()
        with record_function("exchange figures"):
            figures, broken = self._exchange(means, len(batch.skipped))
        if math.isfinite(figures["loss"]) and math.isfinite(norm):
            with record_function("optimizer"):
                self.optimizer.step()
            with record_function("average"):
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
                with record_function("loss"), parallel.autocast(self.recipe, self.accelerator):
                    loss, figures = self.objective.loss(self.model, micro_batch)
                with record_function("backward"):
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
        all, whether one of them was asked to save or to stop, and whether the first could not write a checkpoint.
        """
        mine = {"broken": broken, "save": self.signals.save, "stop": self.signals.stop, "failed": self.writer.failed}
        means = parallel.mean({**figures, **mine}, self.accelerator)
        if means.pop("failed") > 0:
            self._finish_saving()
        self.saving, self.stopping = means.pop("save") > 0, means.pop("stop") > 0
        self.signals.save = self.signals.save and not self.saving
        return means, round(means.pop("broken") * self.accelerator.num_processes)

    def run(self) -> bool:
        """Train to the recipe's last step and export. Returns False where a signal stopped it first (the state is
        saved).

        SIGINT, SIGTERM and SIGHUP save and stop, SIGUSR1 saves and goes on; one process of many being told is enough.
        """
        with self.signals.answered(), self.writer:
            try:
                return self._run()
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"memory ran out beside a step ({str(error).splitlines()[0]}); what was saved is whole; see what"
                    " `check` says, and what else is on the card"
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
        if accelerator.is_main_process:
            self.history.begin(self.step, recipe)
            if self.changed:
                self.history.add(self.step, changed=self.changed)
            if recipe.validation.every and (validation := self.objective.validation()):
                self.history.measure(self.step, validation)
        trackers.begin(accelerator, recipe, self.folder, self.step, self.history.name)
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
            if self.step:  # the run may have been ended between a checkpoint and what was due after it
                self._show()
            while self.step < recipe.steps and not self.stopping:
                self.meter.wait()
                batch = next(batches)
                self.meter.compute(batch)
                if self.step == 0 and accelerator.is_main_process:
                    with self._losing_clips_to_signals():
                        self.objective.preview(batch, self.folder)
                with memory_for(
                    f"step {self.step}",
                    "compute.micro_batch=1 or compute.gradient_checkpointing=true, and see what `check` says",
                ):
                    self.meter.done(self.train_step(batch))
                bar.update()
                if self._due(recipe.log_every):
                    self._log(bar)
                # First of all: whatever goes wrong below, the step is kept.
                due = self._due(recipe.save_every) or self._due(recipe.keep_every)
                if due or self.saving or self.stopping:
                    self.save(wait=self.stopping or self.step == recipe.steps)
                if not self.stopping or self.step == recipe.steps:
                    self._show()  # else where the run goes on: launchers wait for seconds
        finished = self.step >= recipe.steps
        if finished:
            self.export()
        else:
            log.info("stopped at step %d; the same command goes on from there", self.step)
        self.part()
        return finished

    def part(self) -> None:
        """The last thing that a process does with its run: it lets go of the network and of the other processes."""
        # DDP first: were it the last to know the process group, its destructor would wait, with the interpreter's lock,
        # for a thread that may want that.
        self.model = self.network
        self.accelerator.free_memory()
        self.accelerator.end_training()  # and with it what the processes have between them

    def _due(self, every: int) -> bool:
        """Every so many steps (0: never), and at the last."""
        return every > 0 and (self.step % every == 0 or self.step == self.recipe.steps)

    def _show(self) -> None:
        """Held-out losses and clips, where they are due after this step and were not made yet."""
        if self._due(self.recipe.validation.every) and self._lacks("held_out"):
            with memory_for(f"validation at step {self.step}", "fewer frames or pixels (data), or validation.every=0"):
                self._validate()
        if self._due(self.recipe.samples.every) and self._lacks("sampled"):
            with memory_for(
                f"sampling at step {self.step}", "sampling.width, height or frames, or leave it out: samples.every=0"
            ):
                self._sample()

    def _lacks(self, what: str) -> bool:
        """Whether the history, of which the first process alone is sure, has no such line of this step."""
        return bool(parallel.gather_numbers(int(not self.history.has(self.step, what)), self.accelerator)[0])

    @contextmanager
    def _losing_clips_to_signals(self) -> Iterator[None]:
        """Schedulers and terminals tell ffmpeg to stop, too: then a clip is lost, and not the run."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            if not self.signals.stop or isinstance(error, torch.OutOfMemoryError):
                raise
            log.warning("a clip was not written: %s", error)
            self.lost += 1

    def _log(self, bar: tqdm) -> None:
        figures = self.meter.averages() | {"lr": self.learning_rate(self.step - 1)}
        figures |= {f"data/{name}": float(count) for name, count in self.tally.counts.items()}
        bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items() if name in PROGRESS_BAR})
        self.accelerator.log(figures, step=self.step)

    def _validate(self) -> None:
        """Of the weights and of their average; a step whose average is the best so far is saved and stays."""
        live = self.objective.validate(self.model, self.accelerator)
        if not live:
            return
        with self.ema.applied(self.network):
            average = self.objective.validate(self.model, self.accelerator)
        figures = {f"validation/{name}": loss for name, loss in live.items()}
        figures |= {f"validation/average {name}": loss for name, loss in average.items()}
        self.accelerator.log(figures, step=self.step)
        if self.accelerator.is_main_process:
            media = [medium for medium in self.objective.identities if medium in live]
            losses = ", ".join(f"{m} {live[m]:.4f} (average {average[m]:.4f})" for m in media)
            tqdm.write(f"step {self.step}: held-out loss {losses}")
            held_out = {"live": {m: live[m] for m in media}, "average": {m: average[m] for m in media}}
            self.history.add(self.step, held_out=held_out)
        best = parallel.gather_numbers(int(self.history.best() == self.step), self.accelerator)[0]
        if best and self.saved != self.step:
            self.save(wait=False)

    def _sample(self) -> None:
        """With the averaged weights."""
        folder = self.folder / "samples" / f"step-{self.step:08d}"
        if self.recipe.learn.how == "lora":
            weights = self.ema.weights(keep=self.accelerator.is_main_process)
            if self.accelerator.is_main_process:
                self.objective.export_lora(folder / f"lora-{self.step:08d}.safetensors", weights, self.step)
        self.lost = 0
        with self.ema.applied(self.network):
            for clip in self.objective.sample(self.model, self.accelerator):
                with self._losing_clips_to_signals():
                    write_video(folder / f"{clip.name}.mp4", clip.frames, clip.fps)
        self.accelerator.wait_for_everyone()  # each process writes some of the clips
        if self.recipe.validation.metrics and self.accelerator.is_main_process:
            from .measure import sample_clips

            self.accelerator.log(sample_clips(self.recipe, folder), step=self.step)
        with self._losing_clips_to_signals():
            trackers.log_clips(self.accelerator, folder, self.step)
        whole = not any(parallel.gather_numbers(self.lost, self.accelerator))
        if whole and self.accelerator.is_main_process:
            self.history.add(self.step, sampled=True)

    def export(self) -> None:
        """Write the averaged weights; see the objective for the files."""
        weights = self.ema.weights(keep=self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            for path in self.objective.export(self.folder, weights, self.step):
                log.info("wrote %s", path)
        self.accelerator.wait_for_everyone()

"""What the progress bar and the trackers show of a run."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from accelerate import Accelerator

from . import cards
from .objective import AnyBatch, Objective
from .recipe import Recipe


def peak_flops(device: torch.device) -> float:
    """Peak bf16 FLOP/s of a device, 0 where unknown (a CPU, say)."""
    if device.type != "cuda":
        return 0.0
    return cards.peak_of(torch.cuda.get_device_name(device))


class Meter:
    """Running means of a run's figures, its speed, and where the time goes.

    `mfu` is model FLOPs utilisation (PaLM, appendix B): what the network's own forward and backward pass need, of what
    the devices could do. Neither what gradient checkpointing computes again nor the autoencoder and the text encoder
    count.
    """

    def __init__(self, recipe: Recipe, objective: Objective[Any], accelerator: Accelerator):
        self.recipe, self.objective = recipe, objective
        self.peak = peak_flops(accelerator.device) * accelerator.num_processes
        self.sums: dict[str, list[float]] = {}
        self.waited = self.total = self.samples = self.flops = 0.0
        self.start = self.ready = time.perf_counter()

    def wait(self) -> None:
        """A step begins, and waits for its batch."""
        self.start = time.perf_counter()

    def compute(self, batch: AnyBatch) -> None:
        """The batch is there."""
        self.ready = time.perf_counter()
        self.samples += self.recipe.batch
        if self.peak:
            self.flops += self.objective.flops(batch)

    def done(self, figures: dict[str, float]) -> None:
        """The step is done."""
        now = time.perf_counter()
        self.waited += self.ready - self.start
        self.total += now - self.start
        for name, value in figures.items():
            self.sums.setdefault(name, []).append(value)

    def averages(self) -> dict[str, float]:
        """Means since the last call."""
        finite = {name: [v for v in values if math.isfinite(v)] for name, values in self.sums.items()}
        means = {name: sum(values) / len(values) for name, values in finite.items() if values}
        means |= {"clips/s": self.samples / self.total, "data_wait": self.waited / self.total}
        if self.peak:
            means["mfu"] = self.flops / self.total / self.peak
        self.sums, self.waited, self.total, self.samples, self.flops = {}, 0.0, 0.0, 0.0, 0.0
        return means

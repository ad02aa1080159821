"""What the progress bar and the trackers show of a run."""

from __future__ import annotations

import math
import time
from typing import Any

from accelerate import Accelerator
from torch import nn

from ..networks.unet import VideoUNet
from . import cost
from .config import Recipe
from .data.batches import Batch


class Meter:
    """Running means of a run's figures, its speed, and where the time goes.

    `mfu` is model FLOPs utilisation (PaLM, appendix B): what the network's own forward and backward pass need, of what
    the devices could do. Neither what gradient checkpointing computes again nor the autoencoder and the text encoder
    count.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, accelerator: Accelerator):
        self.recipe, self.network = recipe, network
        self.peak = cost.peak_flops(accelerator.device) * accelerator.num_processes
        self.sums: dict[str, list[float]] = {}
        self.waited = self.total = self.samples = self.flops = 0.0
        self.start = self.ready = time.perf_counter()

    def wait(self) -> None:
        self.start = time.perf_counter()

    def compute(self, batch: Any) -> None:
        self.ready = time.perf_counter()
        self.samples += self.recipe.batch
        if self.peak and isinstance(batch, Batch) and isinstance(self.network, VideoUNet):
            self.flops += batch.step.count * cost.sample_flops(
                self.recipe, self.network.config, batch.step.frames, again=False
            )

    def done(self, figures: dict[str, float]) -> None:
        now = time.perf_counter()
        self.waited += self.ready - self.start
        self.total += now - self.start
        for name, value in figures.items():
            self.sums.setdefault(name, []).append(value)

    def averages(self) -> dict[str, float]:
        """Means since the last call."""
        finite = {name: [v for v in values if math.isfinite(v)] for name, values in self.sums.items()}
        out = {name: sum(values) / len(values) for name, values in finite.items() if values}
        out |= {"clips/s": self.samples / self.total, "data_wait": self.waited / self.total}
        if self.peak:
            out["mfu"] = self.flops / self.total / self.peak
        self.sums, self.waited, self.total, self.samples, self.flops = {}, 0.0, 0.0, 0.0, 0.0
        return out

"""The objective that makes a model of few steps of one of many: latent consistency distillation with guidance, as in
T2V-Turbo (arXiv 2405.18750, section 3), without its reward models and its average for a target.

    f(x_t, t) = c_skip x_t + c_out (x_t - sqrt(1 - abar) eps(x_t, t, w)) / sqrt(abar)        (`vc2.sampling.turbo`)
    loss      = |f(x_t, t) - f'(x_s, s)|        s: the timestep before t of those distilled; f' is f without gradient

x_s is what the teacher, asked with guidance, makes of x_t in one DDIM step. The student's schedule is plain, as that of
all T2V-Turbo models is. The teacher's has the dynamic rescale, so it is asked at that of its own timesteps, mostly a
fraction, where signal and noise have the student's ratio.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ..files.checkpoint import assemble
from ..networks.unet import VideoUNet
from ..sampling.schedule import TIMESTEPS, per_frame
from ..sampling.turbo import PLAIN, boundary
from . import cost, lora
from .data.batches import Batch
from .diffusion import DiffusionObjective
from .initialise import start_unet
from .quantise import quantise
from .recipe import Recipe
from .sources.files import fingerprint

HUBER = 0.001  # of the pseudo-Huber distance, per element


class ConsistencyObjective(DiffusionObjective):
    """Owns the teacher too: the network as it was."""

    teacher: VideoUNet

    def __init__(self, recipe: Recipe, cache: Path, device: torch.device):
        super().__init__(recipe, cache, device)
        self.teacher = self._start() if cost.holds_teacher(recipe) else self._below_the_adapters()
        self.teacher.eval().requires_grad_(False)
        self._prepare(self.teacher)

    def _start(self) -> VideoUNet:
        unet = start_unet(self.recipe)
        if self.recipe.compute.frozen == "int8":
            quantise(unet, self.device)
        return unet

    def _below_the_adapters(self) -> VideoUNet:
        """The teacher is in the student already: its very weights."""
        own, _ = lora.split(dict(self.model.named_parameters()))
        return assemble(VideoUNet(self.model.config, device="meta"), own)

    def validation(self) -> str | None:
        """As of any objective, and of what is distilled."""
        found = super().validation()
        return found and fingerprint(found, self.recipe.consistency.model_dump_json())

    @cached_property
    def no_caption(self) -> Tensor:
        """`[1, 77, D]`"""
        return self.encoders.context([""])

    def errors(self, model: nn.Module, batch: Batch, t: Tensor, generators: list[torch.Generator]) -> Tensor:
        """The distance of both ends of a step, for each sample, `[B]`; the step is the one that t `[B]` lies in."""
        x0, noise, context, fps = self._given(batch, generators)
        low, high = self.recipe.consistency.guidance
        # Numbers and no tensor: FSDP would round that to bf16, and what is read of a scale are its thousandths.
        guidance = [low + (high - low) * float(torch.rand((), generator=g)) for g in generators]
        gap = TIMESTEPS // self.recipe.consistency.timesteps
        start = (t // gap + 1) * gap - 1
        end = (start - gap).clamp(min=0)
        x_t = PLAIN.add_noise(x0, noise, start)

        def result(x: Tensor, at: Tensor) -> Tensor:
            eps = model(x, at.to(x.device), context, fps, temporal=self._temporal(x0), guidance=guidance).float()
            signal, sigma = PLAIN.coefficients(at, x)
            skip, out = (per_frame(c, x).to(x) for c in boundary(at))
            return skip * x + out * (x - sigma * eps) / signal

        with torch.no_grad():
            with record_function("teacher"):
                eps = self._taught(x_t, start, context, fps, guidance)
            signal, sigma = PLAIN.coefficients(start, x_t)
            signal_end, sigma_end = PLAIN.coefficients(end, x_t)
            x_s = signal_end * (x_t - sigma * eps) / signal + sigma_end * eps
            with record_function("target"):
                target = result(x_s, end)
        # Up to torch 2.9 autocast hands the weights that it has cast without gradient to the pass with gradient.
        torch.clear_autocast_cache()
        with record_function("network"):
            difference = result(x_t, start) - target
        return (torch.sqrt(difference**2 + HUBER**2) - HUBER).flatten(1).mean(1)

    def _taught(self, x: Tensor, t: Tensor, context: Tensor, fps: Tensor, guidance: list[float]) -> Tensor:
        """The teacher's epsilon with guidance."""
        scale, own = self.asked(t)
        x_own = x * per_frame(scale, x).to(x)
        eps = self.teacher(
            torch.cat([x_own, x_own]),
            torch.cat([own, own]).to(x),
            torch.cat([context, self.no_caption.expand_as(context)]),
            torch.cat([fps, fps]),
            temporal=self._temporal(x),
        ).float()
        cond, uncond = eps.chunk(2)
        return cond + per_frame(torch.tensor(guidance), x).to(x) * (cond - uncond)

    def asked(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(factor, timestep), `[B]` each: what latents of the plain schedule at `t` are multiplied by and when they
        would then be the teacher's.
        """
        steps = np.arange(TIMESTEPS)
        abar = self.schedule.alphas_cumprod.double().numpy()
        noise = np.sqrt(1 - abar)
        # Noise over signal only grows.
        own_sigmas, sigmas = self.schedule.sigmas().double().numpy(), PLAIN.sigmas().double().numpy()
        at = t.numpy()
        own = np.interp(np.log(sigmas[at]), np.log(own_sigmas), steps)
        factor = np.interp(own, steps, noise) / noise[at]
        return torch.from_numpy(factor), torch.from_numpy(own)

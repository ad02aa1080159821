"""What a run shows while it trains: the loss on held-out samples, and clips. Every process takes a share, and none
waits for the first.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule

from ..files.video import write_video
from ..networks.unet import VideoUNet
from ..pipeline import Guided, Settings, to_pixels
from ..sampling import ddim
from ..sampling.schedule import TIMESTEPS
from .data.batches import MEDIA, VALIDATION, Sample, torch_generator
from .diffusion import DiffusionObjective
from .initialise import sampling_of
from .parallel import autocast
from .partition import train_what_learns

CHUNK = 4  # samples a forward pass


@torch.no_grad()
def held_out_loss(
    objective: DiffusionObjective, model: nn.Module, accelerator: Accelerator, samples: dict[str, list[Sample]]
) -> dict[str, float]:
    """Mean squared error of epsilon on the held-out samples of each medium, at each quantile of the timesteps.

    Noise comes from (seed, sample, quantile), so that every validation of every run of a seed asks the same questions.
    """
    quantiles = objective.recipe.validation.quantiles
    jobs = [
        (medium, q, k)
        for medium in samples
        for q in range(len(quantiles))
        for k in range(0, len(samples[medium]), CHUNK)
    ]
    totals = torch.zeros(len(MEDIA), len(quantiles), 2, device=accelerator.device)
    model.eval()
    for start in range(0, len(jobs), accelerator.num_processes):
        # The last round may have fewer jobs than processes; all the same all of them go through the network, which may
        # be sharded.
        mine = start + accelerator.process_index
        medium, q, k = jobs[min(mine, len(jobs) - 1)]
        part = samples[medium][k : k + CHUNK]
        kind = MEDIA.index(medium)
        generators = [torch_generator(objective.recipe.seed, VALIDATION, kind, k + i, q) for i in range(len(part))]
        t = torch.full((len(part),), int(quantiles[q] * TIMESTEPS))
        text = None if part[0].text is None else torch.stack([sample.text for sample in part])  # type: ignore[misc]
        fps = torch.tensor([round(sample.fps) for sample in part])
        frames = torch.stack([s.frames for s in part])
        with autocast(objective.recipe, accelerator):
            errors = objective.errors(model, frames, [s.caption for s in part], text, fps, t, generators)
        if mine < len(jobs):
            totals[kind, q] += torch.stack([errors.sum(), torch.tensor(float(len(part)), device=errors.device)])
    train_what_learns(model)
    totals = accelerator.reduce(totals, "sum").cpu()
    out: dict[str, float] = {}
    for medium in samples:
        sums, counts = totals[MEDIA.index(medium)].unbind(-1)
        out |= {
            f"validation/{medium} t={int(q * TIMESTEPS)}": float(s / n)
            for q, s, n in zip(quantiles, sums, counts, strict=True)
            if n
        }
        out[f"validation/{medium}"] = float((sums / counts).mean())
    return out


def sample_settings(objective: DiffusionObjective) -> Settings:
    """How sample clips are made. Raises ValueError for what cannot be sampled."""
    settings = Settings.of({"sampling": json.dumps(sampling_of(objective.recipe))})
    settings.check(objective.autoencoder.config.downsampling)
    return settings


@torch.no_grad()
def sample_clips(objective: DiffusionObjective, model: nn.Module, accelerator: Accelerator, folder: Path) -> None:
    """An mp4 of each of the recipe's prompts, seeds 0, 1, ..."""
    recipe, vae = objective.recipe, objective.autoencoder
    prompts, settings, factor = recipe.samples.prompts, sample_settings(objective), vae.config.downsampling
    model.eval()
    for start in range(0, len(prompts), accelerator.num_processes):
        mine = start + accelerator.process_index
        index = min(mine, len(prompts) - 1)
        generator = torch.Generator().manual_seed(index)
        shape = (1, 4, settings.frames, settings.height // factor, settings.width // factor)

        def noise(_: int = 0, shape=shape, generator=generator) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(accelerator.device)

        context = objective.text([prompts[index], settings.negative]).float()
        denoise = Guided(
            cast(VideoUNet, model),
            context[:1],
            context[1:],
            torch.tensor([float(settings.fps)], device=accelerator.device),
            settings.guidance,
        )
        # Sharded processes must run the same passes: none may fall back to two when its memory runs out.
        denoise.one_batch = not isinstance(model, FSDPModule)
        with autocast(objective.recipe, accelerator):
            z = ddim.sample(denoise, noise(), objective.schedule, settings.steps, settings.eta, noise)
            clip = to_pixels(vae, z[0])
        if mine < len(prompts):
            name = re.sub(r"[^\w]+", "-", prompts[index])[:60].strip("-")
            write_video(folder / f"{index:02d}-{name}.mp4", list(clip), 10)
    train_what_learns(model)

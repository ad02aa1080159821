"""What a run shows while it trains: the loss on held-out samples, and clips. Every process takes a share, and none
waits for the first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from ..networks.unet import VideoUNet
from ..pipeline import Guided, Settings, to_pixels
from ..sampling import ddim, turbo
from ..sampling.schedule import TIMESTEPS, NoiseSchedule
from .data.batches import Batch
from .data.plan import Step
from .encoders import Encoders
from .initialise import sampling_of
from .objective import SampleClip
from .parallel import autocast
from .partition import train_what_learns
from .recipe import Recipe
from .rng import VALIDATION, torch_generator
from .sources.source import MEDIA, Sample

CHUNK = 4  # samples a forward pass
UNTOLD_FPS = 10  # at which clips play that have no frame rate
Errors = Callable[[nn.Module, Batch, Tensor, list[torch.Generator]], Tensor]


@torch.no_grad()
def held_out_loss(
    errors: Errors, model: nn.Module, recipe: Recipe, accelerator: Accelerator, held_out: dict[str, list[Sample]]
) -> dict[str, float]:
    """The mean of `errors` over the held-out samples of each medium: in all, and at each quantile of the timesteps.

    Noise comes from (seed, sample, quantile), so that every validation of every run with a seed uses the same noise and
    the same timesteps.
    """
    quantiles = recipe.validation.quantiles
    jobs = [
        (medium, q, k)
        for medium, samples in held_out.items()
        for q in range(len(quantiles))
        for k, _ in _alike(samples)
    ]
    totals = torch.zeros(len(MEDIA), len(quantiles), 2, device=accelerator.device)  # sum of errors, samples
    with _evaluated(model):
        for start in range(0, len(jobs), accelerator.num_processes):
            # The last round may have fewer jobs than processes; all the same all of them go through the network, which
            # may be sharded.
            mine = start + accelerator.process_index
            medium, q, k = jobs[min(mine, len(jobs) - 1)]
            kind, samples = MEDIA.index(medium), held_out[medium][k : dict(_alike(held_out[medium]))[k]]
            step = Step(q, medium, len(samples[0].frames), (1, 1), k, len(samples))
            batch = Batch.of(samples, step, list(range(k, k + len(samples))))
            generators = [torch_generator(recipe.seed, VALIDATION, kind, slot, q) for slot in batch.slots]
            t = torch.full((len(batch),), int(quantiles[q] * TIMESTEPS))
            with autocast(recipe, accelerator):
                total = errors(model, batch, t, generators).sum()
            if mine < len(jobs):
                totals[kind, q] += torch.stack([total, torch.tensor(float(len(batch)), device=total.device)])
    totals = accelerator.reduce(totals, "sum").cpu()
    figures: dict[str, float] = {}
    for medium in held_out:
        sums, counts = totals[MEDIA.index(medium)].unbind(-1)
        figures |= {
            f"{medium} t={int(q * TIMESTEPS)}": float(s / n) for q, s, n in zip(quantiles, sums, counts, strict=True)
        }
        figures[medium] = float((sums / counts).mean())
    return figures


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Within, nothing is dropped out; afterwards it learns as before, whatever was raised."""
    model.eval()
    try:
        yield
    finally:
        train_what_learns(model)


def _alike(samples: list[Sample]) -> Iterator[tuple[int, int]]:
    """From which sample to before which those of a forward pass are: at most CHUNK, of one shape."""
    start = 0
    for end in range(1, len(samples) + 1):
        if (
            end == len(samples)
            or end - start == CHUNK
            or samples[end].frames.shape[-2:] != samples[start].frames.shape[-2:]
        ):
            yield start, end
            start = end


def sample_settings(recipe: Recipe, downsampling: int) -> Settings:
    """How sample clips are made, with an autoencoder that is so many times as coarse. Raises ValueError for what cannot
    be sampled.
    """
    settings = Settings.of({"sampling": json.dumps(sampling_of(recipe))})
    settings.check(downsampling)
    return settings


@torch.no_grad()
def sample_clips(
    encoders: Encoders,
    schedule: NoiseSchedule,
    model: nn.Module,
    recipe: Recipe,
    accelerator: Accelerator,
) -> Iterator[SampleClip]:
    """A clip of each of the recipe's prompts, seeds 0, 1, ..., that plays at the frame rate it was sampled for."""
    factor = encoders.autoencoder.config.downsampling
    prompts, settings = recipe.samples.prompts, sample_settings(recipe, factor)
    shape = (1, 4, settings.frames, settings.height // factor, settings.width // factor)
    with _evaluated(model):
        for start in range(0, len(prompts), accelerator.num_processes):
            mine = start + accelerator.process_index
            index = min(mine, len(prompts) - 1)
            generator = torch.Generator().manual_seed(index)

            def noise(_: int = 0, generator=generator) -> Tensor:
                return torch.randn(shape, generator=generator).to(accelerator.device)

            context = encoders.context([prompts[index], settings.negative])
            fps = torch.tensor([float(settings.fps)], device=accelerator.device)
            with autocast(recipe, accelerator):
                if recipe.distils:

                    def denoise(x: Tensor, t: Tensor, context=context, fps=fps) -> Tensor:
                        return model(x, t, context[:1], fps, guidance=settings.guidance).float()

                    z = turbo.sample(denoise, noise(), settings.steps, settings.original_steps, noise)
                else:
                    guided = Guided(cast(VideoUNet, model), context[:1], context[1:], fps, settings.guidance)
                    # Sharded processes must run the same passes: none may fall back to two when its memory runs out.
                    guided.one_batch = not isinstance(model, FSDPModule)
                    z = ddim.sample(guided, noise(), schedule, settings.steps, settings.eta, noise)
                clip = to_pixels(encoders.autoencoder, z[0])
            if mine < len(prompts):
                name = re.sub(r"[^\w]+", "-", prompts[index])[:60].strip("-")
                yield SampleClip(f"{index:02d}-{name}", list(clip), settings.fps or UNTOLD_FPS)
